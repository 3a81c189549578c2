"""The mutants: each a promise broken by a few characters, and the tests that must notice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A replacement in `file` of the text `before`, which is there exactly once; `tests` are pytest's node ids."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


_ATTRIBUTES = "shared/twofold/attributes.py"
_RECEIVING = "shared/twofold/receiving.py"
_DELIVERY = "shared/twofold/delivery.py"
_GROUP_COMMIT = "shared/twofold/group_commit.py"
_SETTINGS = "shared/twofold/settings.py"
_MONGO = "shared/twofold/mongo.py"
_EVENT = "shared/twofold/event.py"
_EVENTS = "shared/twofold/events.py"
_PUBLISHING = "shared/twofold/publishing.py"
_STORING = "shared/twofold/storing.py"
_RELAYING = "shared/twofold/relaying.py"
_CHECKPOINTS = "shared/twofold/checkpoints.py"
_LETTERS = "shared/twofold/dead_letters.py"
_KAFKA = "shared/twofold/kafka.py"
_API = "shared/twofold/api.py"
_AUTH = "shared/twofold/auth.py"
_FILTERS = "shared/twofold/filters.py"
_PARAMETERS = "shared/twofold/parameters.py"
_ARCHIVE = "shared/twofold/archive.py"
_WATCHING = "functions/pod_events/watching.py"
_LISTING = "functions/pod_events/listing.py"
_LIFECYCLE = "functions/pod_events/lifecycle.py"
_CAUSES = "functions/pod_events/causes.py"
_POD_IDS = "functions/pod_events/identity.py"
_TEST_LIFECYCLE = "tests/unit/test_pod_lifecycle.py"
_TEST_WATCHING = "tests/contract/test_watching.py"
_TEST_OBSERVING = "tests/contract/test_observing.py"
_TEST_SEEN = "tests/contract/test_seen_pods.py"
_TEST_LISTING = "tests/flow/test_pod_listing.py"
_TEST_LISTING_PODS = "tests/contract/test_listing_pods.py"
_TEST_ARCHIVE = "tests/contract/test_archive.py"
_OTEL = "shared/twofold/otel.py"
_HTTP = "shared/twofold/http.py"
_TEST_TRACING = "tests/unit/test_tracing.py"
_TEST_CLOUDEVENTS = "tests/unit/test_cloudevents.py"
_TEST_DELIVERY = "tests/unit/test_decode_kafka.py"
_TEST_RECEIVING = "tests/unit/test_decode_http.py"
_TEST_EVENT = "tests/unit/test_event.py"
_TEST_GROUP_COMMIT = "tests/unit/test_group_commit.py"
_TEST_SETTINGS = "tests/unit/test_settings.py"
_TEST_MONGO = "tests/contract/test_mongo.py"
_TEST_PUBLISHING = "tests/contract/test_publisher.py"
_TEST_STORING = "tests/contract/test_store.py"
_TEST_RELAYING = "tests/contract/test_relay.py"
_TEST_CHECKPOINTS = "tests/contract/test_checkpoints.py"
_TEST_AUTH = "tests/unit/test_auth.py"
_TEST_QUERY = "tests/flow/test_query.py"
_TEST_REDRIVING = "tests/contract/test_redrive.py"
_RULES_HOLD = "tests/manifests/test_rules.py::test_every_rule_holds"

MUTANTS = (
    # what an answer is worth
    Mutant(
        "a write that one member took is enough",
        _MONGO,
        'write_concern=WriteConcern("majority")',
        "write_concern=WriteConcern(1)",
        (f"{_TEST_MONGO}::test_the_uri_cannot_weaken_the_concerns",),
    ),
    Mutant(
        "publish answers before the write",
        _PUBLISHING,
        "            results = await self._commit.submit(list(entries.values()))\n",
        "            asyncio.ensure_future(self._commit.submit(list(entries.values())))\n"
        "            results = [None] * len(entries)\n",
        (f"{_TEST_PUBLISHING}::TestGroupCommit::test_a_write_concern_error_acknowledges_nobody",),
    ),
    Mutant(
        "store answers before the write",
        _STORING,
        "            (there,) = await self._commit.submit([entry])\n",
        '            __import__("asyncio").ensure_future(self._commit.submit([entry]))\n            there = None\n',
        (f"{_TEST_STORING}::TestTrouble::test_a_write_concern_error_acknowledges_nobody",),
    ),
    Mutant(
        "write-concern errors are ignored",
        _MONGO,
        'if error.details["writeConcernErrors"]:',
        "if False:",
        (f"{_TEST_STORING}::TestTrouble::test_a_write_concern_error_acknowledges_nobody",),
    ),
    Mutant(
        "inserts are ordered",
        _MONGO,
        "ordered=False",
        "ordered=True",
        (f"{_TEST_STORING}::TestPoison::test_poison_among_500_affects_itself_alone",),
    ),
    Mutant(
        "a duplicate is answered without a majority read",
        _MONGO,
        'read_concern=ReadConcern("majority")',
        'read_concern=ReadConcern("local")',
        (f"{_TEST_MONGO}::test_the_uri_cannot_weaken_the_concerns",),
    ),
    Mutant(
        "an event that Kafka can't carry is accepted",
        _PUBLISHING,
        "if record_size > self._max_record_bytes:",
        "if False:",
        (f"{_TEST_PUBLISHING}::TestLibrary::test_an_event_too_large_for_kafka_is_refused_before_it_is_stored",),
    ),
    Mutant(
        "what waits to be written is bounded in number alone",
        _GROUP_COMMIT,
        "if self._held_bytes and self._held_bytes + size > self._capacity_bytes:",
        "if False:",
        (f"{_TEST_GROUP_COMMIT}::test_bytes_are_bounded_whether_they_wait_or_are_being_written",),
    ),
    Mutant(
        "room in the queue does not come back after a failure",
        _GROUP_COMMIT,
        "            self._let_go(group)\n            for caller in group:\n",
        "            for caller in group:\n",
        (f"{_TEST_GROUP_COMMIT}::test_room_in_bytes_comes_back_from_who_failed_and_who_gave_up",),
    ),
    Mutant(
        "records may be larger than letters",
        _SETTINGS,
        "if self.max_message_bytes > self.max_delivery_bytes:",
        "if False:",
        (f"{_TEST_SETTINGS}::test_a_record_that_no_letter_could_hold_is_refused_at_the_start",),
    ),
    Mutant(
        "batches may be larger than the queue",
        _SETTINGS,
        "if self.max_batch_events > self.group_commit_capacity:",
        "if False:",
        (f"{_TEST_SETTINGS}::test_a_batch_that_the_queue_could_never_hold_is_refused_at_the_start",),
    ),
    Mutant(
        "twofold publish forgets what was taken when MongoDB goes away",
        "shared/twofold/cli/publish.py",
        '        finally:\n            show(counts, as_json, "events")\n',
        '        finally:\n            pass\n        show(counts, as_json, "events")\n',
        ("tests/flow/test_cli.py::TestPublish::test_what_was_taken_before_mongodb_went_away_is_told",),
    ),
    Mutant(
        "a Broker's wish among others is not heard",
        "functions/publish/main.py",
        'if any(preference.partition(";")[0].strip().lower() == "reply" for preference in line.split(",")):',
        'if line == "reply":',
        ("tests/flow/test_write_path.py::TestEdge::test_a_sink_that_is_asked_not_to_reply_sends_no_body",),
    ),
    Mutant(
        "attributes that the way to store can't carry are accepted",
        _PUBLISHING,
        "            check_size(record.headers)\n",
        "",
        (
            f"{_TEST_PUBLISHING}::TestLibrary"
            "::test_an_event_with_more_attributes_than_the_way_takes_is_refused_before_it_is_stored",
        ),
    ),
    Mutant(
        "store measures attributes as publish does",
        _ATTRIBUTES,
        "    check_context(attributes)\n    digest =",
        (
            "    check_context(attributes)\n    from twofold.cloudevents import check_size\n\n"
            "    check_size(attributes.items())\n    digest ="
        ),
        (
            f"{_TEST_CLOUDEVENTS}"
            "::test_the_most_attributes_that_are_accepted_are_read_by_store_with_all_that_is_added_on_the_way",
        ),
    ),
    Mutant(
        "reserved names are accepted",
        _RECEIVING,
        "if reserved := sorted(RESERVED & attributes.keys()):",
        "if reserved := sorted(set()):",
        ("tests/unit/test_bad_input.py",),
    ),
    Mutant(
        "publish takes attributes that can't be read back",
        _RECEIVING,
        "    if not passes_fast_check(said, attributes.values()):\n        return None\n",
        "",
        ("tests/unit/test_bad_input.py",),
    ),
    Mutant(
        "publish takes a payload that can't be read back",
        _RECEIVING,
        "    check_payload(data)\n",
        "",
        ("tests/unit/test_bad_input.py",),
    ),
    *(
        Mutant(
            f"publish writes an event otherwise than it is: {what}",
            _RECEIVING,
            before,
            after,
            (f"{_TEST_RECEIVING}::test_what_publish_writes_without_an_event_is_what_the_event_would_be_written_as",),
        )
        for what, before, after in (
            ("with what is about one hop", " if name not in _NOT_SENT}", "}"),
            ("with the time as it was given", '    sent["time"] = time\n', ""),
            ("with the version that goes without saying", '        sent.pop("eventversion", None)\n', "        pass\n"),
            ("without saying who gave the time", '        sent["timeassigned"] = "true"\n', "        pass\n"),
        )
    ),
    # identity
    Mutant(
        "an application publishes what it made of an event behind the schema's back",
        _PUBLISHING,
        "(event.model_copy())",
        "(event)",
        (f"{_TEST_PUBLISHING}::TestLibrary::test_a_payload_that_was_changed_since_is_checked_again",),
    ),
    Mutant(
        "a payload is published under the digest of what it was before",
        _PUBLISHING,
        "(event.model_copy())",
        "(event if Event.from_document(event.to_document()) else event)",
        (
            f"{_TEST_PUBLISHING}::TestLibrary"
            "::test_a_payload_that_was_changed_since_its_digest_was_made_is_another_event",
        ),
    ),
    Mutant(
        "publish holds the events of a batch until they are written",
        _PUBLISHING,
        "        for item in received:\n",
        "        for item in (received := list(received)):\n",
        (f"{_TEST_PUBLISHING}::TestGroupCommit::test_events_are_let_go_one_by_one",),
    ),
    Mutant(
        "a digest is made of numbers with an exponent as orjson writes them",
        _EVENT,
        "if not (has_exponent or _SMALL.search(made)):",
        "if not _SMALL.search(made):",
        (f"{_TEST_EVENT}::test_canonical_json_is_that_of_the_standard_library",),
    ),
    Mutant(
        "a digest is made of small numbers as orjson writes them",
        _EVENT,
        "if not (has_exponent or _SMALL.search(made)):",
        "if not has_exponent:",
        (f"{_TEST_EVENT}::test_canonical_json_is_that_of_the_standard_library",),
    ),
    Mutant(
        "publish compares ids without digests",
        _PUBLISHING,
        "if result is not None and result != written.digest:",
        "if False:",
        (f"{_TEST_PUBLISHING}::TestLibrary::test_the_same_id_with_other_content_is_a_conflict",),
    ),
    Mutant(
        "store compares ids without digests",
        _STORING,
        "if there is not None and there != digest:",
        "if False:",
        (f"{_TEST_STORING}::TestPoison::test_another_event_under_a_known_id_is_a_dead_letter",),
    ),
    Mutant(
        "relay compares ids without digests",
        _RELAYING,
        "if in_log[mark.event_id] == mark.digest]",
        "]",
        (f"{_TEST_RELAYING}::TestGivenUp::test_a_conflict_keeps_its_mark_and_is_tried_no_more",),
    ),
    Mutant(
        "store does not check the digest",
        _ATTRIBUTES,
        "    if event.digest != own.digest:",
        "    if False:",
        (f"{_TEST_STORING}::TestPoison::test_an_altered_event_is_a_dead_letter",),
    ),
    Mutant(
        "store takes an event for vouched whatever the digest says",
        _DELIVERY,
        "    if digest_of(id_text, said, body, time) != own.digest or",
        "    if",
        (f"{_TEST_STORING}::TestPoison::test_an_altered_event_is_a_dead_letter",),
    ),
    Mutant(
        "store takes attributes that can't be read back if their digest fits",
        _DELIVERY,
        " or not passes_fast_check(said, attributes.values()):",
        ":",
        (f"{_TEST_DELIVERY}::test_attributes_that_the_schema_forbids_are_refused_whoever_vouches",),
    ),
    Mutant(
        "store takes a payload that can't be read back if its digest fits",
        _DELIVERY,
        "    if not is_canonical:",
        "    if False:",
        (f"{_TEST_DELIVERY}::test_a_payload_that_the_schema_forbids_is_refused_whoever_vouches",),
    ),
    Mutant(
        "a replay makes new events",
        _STORING,
        '                raise UnknownReplay("a replayed event must be known", "replayid")',
        "                return",
        (f"{_TEST_STORING}::TestReplay::test_an_unknown_event_is_a_dead_letter",),
    ),
    # the mark and the clock of retention
    Mutant(
        "the mark goes with Kafka's acknowledgement",
        _RELAYING,
        "                    run.resent += 1\n",
        "                    run.resent += 1\n"
        "                    await self._events.confirm([event.event_id], self._retention)\n",
        (f"{_TEST_RELAYING}::TestConfirmed::test_without_its_event_in_the_log_a_mark_stays",),
    ),
    Mutant(
        "the expiry comes from the client's clock",
        _EVENTS,
        'expires_at = {"$add": ["$$NOW", round(retention.total_seconds() * 1000)]}',
        "expires_at = datetime.now().astimezone() + retention",
        (f"{_TEST_RELAYING}::TestConfirmed::test_the_expiry_is_computed_by_the_server",),
    ),
    Mutant(
        "what somebody made of an event in the database is sent to the log",
        _EVENTS,
        '    if event.digest != document["digest"]:\n',
        "    if False:\n",
        (f"{_TEST_RELAYING}::TestGivenUp::test_a_document_that_was_changed_never_reaches_the_log",),
    ),
    Mutant(
        "a marked event expires",
        _EVENTS,
        'outbox={"state": "new", "tries": 0})',
        'outbox={"state": "new", "tries": 0}, expires_at=stored_at)',
        (f"{_TEST_PUBLISHING}::TestMarks::test_an_event_is_stored_with_its_mark_and_without_an_expiry",),
    ),
    Mutant(
        "an event that is sent again expires though the log lacks it",
        _EVENTS,
        '[{"$set": {"outbox": mark}}])',
        '[{"$set": {"outbox": mark, "expires_at": "$$NOW"}}])',
        (f"{_TEST_RELAYING}::TestExpiry",),
    ),
    Mutant(
        "an event that is marked again keeps its expiry",
        _EVENTS,
        '            {"$unset": "expires_at"},\n',
        "",
        ("tests/contract/test_reconcile.py::test_what_the_log_lacks_is_marked_and_expires_no_more",),
    ),
    Mutant(
        "a confirmed event's clock starts anew with each look",
        _EVENTS,
        '"_id": {"$in": list(ids)}, "outbox": {"$exists": True}}',
        '"_id": {"$in": list(ids)}}',
        (f"{_TEST_RELAYING}::TestConfirmed::test_confirming_twice_does_not_move_the_expiry",),
    ),
    Mutant(
        "a function may delete marked events",
        "shared/twofold/setup.py",
        '"events": ("find", "update"),',
        '"events": ("find", "update", "remove"),',
        ("tests/contract/test_setup.py::TestRights::test_no_role_but_admins_may_remove_anything",),
    ),
    Mutant(
        "store may change the log",
        "shared/twofold/setup.py",
        '"store": {"event_store": APPEND,',
        '"store": {"event_store": CHANGE,',
        ("tests/contract/test_setup.py::TestRights::test_no_role_gives_more_than_insert_and_find_in_the_log",),
    ),
    # sending again
    Mutant(
        "the back-off never resends",
        _EVENTS,
        '"next_try": {"$add": ["$$NOW", {"$min": [LONGEST_BACK_OFF * self._back_off_ms, doubled]}]},',
        '"next_try": None,',
        (f"{_TEST_RELAYING}::TestSentAgain::test_the_wait_grows_with_each_try",),
    ),
    Mutant(
        "the next try is set only after sending",
        _RELAYING,
        "            await self._events.postpone([event.event_id for event, _ in some])\n"
        "            outcomes = await self._sender.send([record for _, record in some])\n",
        "            outcomes = await self._sender.send([record for _, record in some])\n"
        "            await self._events.postpone([event.event_id for event, _ in some])\n",
        (f"{_TEST_RELAYING}::TestSentAgain::test_its_next_try_is_set_before_it_is_sent",),
    ),
    Mutant(
        "the relay loads all that it sends at once",
        _RELAYING,
        "sizes.__getitem__, self._load_bytes)",
        "sizes.__getitem__, 2**60)",
        (
            f"{_TEST_RELAYING}::TestLarge::test_events_are_loaded_and_sent_in_pieces",
            "tests/flow/test_relay_memory.py",
        ),
    ),
    Mutant(
        "what the sender has no room for counts as tried",
        _RELAYING,
        "lambda each: each[1].size, self._send_bytes)",
        "lambda each: each[1].size, 2**60)",
        (f"{_TEST_RELAYING}::TestLarge::test_no_more_is_offered_than_the_sender_holds",),
    ),
    Mutant(
        "when Kafka goes away the rest of the batch counts as tried",
        _RELAYING,
        "            if run.unsent or self._seconds() >= until:\n                return\n",
        "            if self._seconds() >= until:\n                return\n",
        (f"{_TEST_RELAYING}::TestLarge::test_a_broker_that_goes_away_costs_what_was_offered_one_try",),
    ),
    Mutant(
        "what the consumer group has before it is sent again",
        _RELAYING,
        "and backlog.may_hold(mark.sent_at + self._clock_skew)",
        "and False",
        (f"{_TEST_RELAYING}::TestHeld::test_what_may_still_be_on_its_way_is_held_without_counting_a_try",),
    ),
    Mutant(
        "what clocks that differ may have put before the oldest record is sent again",
        _RELAYING,
        "backlog.may_hold(mark.sent_at + self._clock_skew)",
        "backlog.may_hold(mark.sent_at - self._clock_skew)",
        (f"{_TEST_RELAYING}::TestHeld::test_what_was_sent_about_when_the_oldest_record_was_is_held",),
    ),
    Mutant(
        "what the consumer group has before it is held for ever",
        _RELAYING,
        "if now - mark.sent_at < LONGEST_HOLD and backlog",
        "if backlog",
        (f"{_TEST_RELAYING}::TestHeld::test_it_is_sent_all_the_same_after_an_hour",),
    ),
    Mutant(
        "an unreadable event stops the run",
        _EVENTS,
        "    except Rejected as refusal:\n        return refusal\n",
        "    except Rejected:\n        raise\n",
        (f"{_TEST_RELAYING}::TestGivenUp::test_an_unreadable_document_does_not_stop_the_others",),
    ),
    Mutant(
        "a record that Kafka refuses stops its event silently",
        _RELAYING,
        "                    await self._dead_letter(event, record, outcome, run)\n",
        "                    run.unsent += 1\n",
        (
            f"{_TEST_RELAYING}::TestSentAgain"
            "::test_a_record_that_kafka_refuses_for_good_is_a_dead_letter_and_the_run_goes_on",
        ),
    ),
    Mutant(
        "an outage of Kafka makes the back-off grow",
        _RELAYING,
        "if missing and backlog is not None:",
        "if missing and (backlog := backlog or Backlog({}, None)):",
        (f"{_TEST_RELAYING}::TestSentAgain::test_without_kafka_marks_are_taken_off_and_no_try_is_counted",),
    ),
    Mutant(
        "two relays work at once",
        "shared/twofold/locks.py",
        "            yield None\n",
        "            yield Lock(locks, ours, extended)\n",
        ("tests/contract/test_lock.py::test_only_one_holds_it",),
    ),
    *(
        Mutant(
            f"a record is called acknowledged {when}",
            _KAFKA,
            before,
            after,
            ("tests/contract/test_kafka.py::test_a_record_that_was_not_waited_for_is_not_called_acknowledged",),
        )
        for when, before, after in (
            ("when the time is over", "if await asyncio.to_thread(", "if True or await asyncio.to_thread("),
            ("when its sender was closed", " and self._producer is first:", ":"),
        )
    ),
    Mutant(
        "offsets of a lost log are believed",
        _KAFKA,
        "            place.offset = 0\n",
        "            place.offset = _end(consumer, place)\n",
        ("tests/contract/test_backlog.py::test_what_was_committed_of_a_log_that_was_lost_counts_for_nothing",),
    ),
    # dead letters
    Mutant(
        "a dead letter is acknowledged before it is durable",
        _STORING,
        "            await self._dead_letters.keep(DeadLetter(headers, body, reason, partition, offset, received))\n",
        "            letter = DeadLetter(headers, body, reason, partition, offset, received)\n"
        '            __import__("asyncio").ensure_future(self._dead_letters.keep(letter))\n',
        (f"{_TEST_STORING}::TestTrouble::test_a_letter_that_is_not_durable_is_not_acknowledged",),
    ),
    Mutant(
        "poison is answered with 503",
        _STORING,
        "        except Rejected as reason:\n            partition, offset",
        "        except Rejected as reason:\n            raise\n            partition, offset",
        (f"{_TEST_STORING}::TestPoison::test_an_altered_event_is_a_dead_letter",),
    ),
    Mutant(
        "a redrive is not conditional",
        _LETTERS,
        '{"_id": dead_letter_id, "state": before} | (only or {})',
        '{"_id": dead_letter_id} | (only or {})',
        (f"{_TEST_REDRIVING}::test_two_redrives_at_once_send_it_once",),
    ),
    Mutant(
        "a redriven record loses its letter's name",
        _LETTERS,
        "if (dead_letter_id := redriven_dead_letter_id(headers)) is None:",
        "if (dead_letter_id := redriven_dead_letter_id([])) is None:",
        (f"{_TEST_REDRIVING}::test_raw_poison_comes_back_as_the_same_letter",),
    ),
    Mutant(
        "poison hides behind the letter that it names",
        _LETTERS,
        "return dead_letter_id if letter and _is_of(letter, headers, body, received) else None",
        "return dead_letter_id",
        (f"{_TEST_REDRIVING}::TestNamed::test_other_poison_that_names_a_letter_is_a_letter_of_its_own",),
    ),
    Mutant(
        "another event ends the letter that it names",
        _LETTERS,
        'return (letter["event_id"], letter["digest"]) == (received.event_id, received.digest)',
        "return True",
        (f"{_TEST_REDRIVING}::TestNamed::test_another_event_that_names_a_letter_does_not_end_it",),
    ),
    Mutant(
        "a redriven letter that comes late stays dead",
        _LETTERS,
        '{"$ne": "stored"}, "stored"',
        '"redriving", "stored"',
        (f"{_TEST_REDRIVING}::test_one_that_counted_as_lost_and_then_comes_is_stored",),
    ),
    Mutant(
        "a letter stays dead though its event is in the log",
        _RELAYING,
        "        await self._look_up_dead_letters()\n",
        "",
        (f"{_TEST_REDRIVING}::TestUndelivered::test_one_that_was_in_the_log_already_is_stored_with_the_next_run",),
    ),
    Mutant(
        "other content in the log ends a letter",
        _LETTERS,
        'if letter["digest"] == digests[letter["event_id"]]]',
        "]",
        (f"{_TEST_REDRIVING}::TestUndelivered::test_other_content_in_the_log_does_not_end_it",),
    ),
    Mutant(
        "a letter's first reason sticks",
        _LETTERS,
        '"reason": reason, "detail": {"$literal": detail}, "history"',
        '"history"',
        (f"{_TEST_REDRIVING}::TestUndelivered::test_one_that_then_fails_for_a_reason_of_its_own_is_dead_for_that",),
    ),
    Mutant(
        "a redrive that died stays on its way for ever",
        _RELAYING,
        "        await self._dead_letters.expire_redrives()\n",
        "",
        (f"{_TEST_REDRIVING}::test_one_that_dies_half_way_leaves_a_letter_that_is_dead_again_in_time",),
    ),
    Mutant(
        "what a source gave up on is tried no more",
        _LETTERS,
        '"reason": {"$nin": list(PASSING)},',
        "",
        (f"{_TEST_REDRIVING}::TestUndelivered",),
    ),
    Mutant(
        "a replay of what is still on its way makes the relay give it up",
        _LETTERS,
        "PASSING = (Undelivered.title, UnknownReplay.title)",
        "PASSING = (Undelivered.title,)",
        ("tests/flow/test_write_path.py::TestReplayed::test_a_replay_of_what_is_still_on_its_way_stops_nothing",),
    ),
    Mutant(
        "a replay's letter is the event's",
        _LETTERS,
        '                content.update(b"replayed")\n',
        "                pass\n",
        ("tests/contract/test_dead_letters.py::test_a_replay_has_a_letter_of_its_own",),
    ),
    # taking events out of `events`
    Mutant(
        "an admin deletes what is not known to be in the log",
        _ARCHIVE,
        'if "outbox" in document:',
        "if False:",
        (f"{_TEST_ARCHIVE}::TestRefused::test_one_with_a_mark_stays",),
    ),
    Mutant(
        "an admin deletes what the log lacks",
        _ARCHIVE,
        'if (await known(self._database["event_store"], [event_id])).get(event_id) != document["digest"]:',
        "if False:",
        (f"{_TEST_ARCHIVE}::TestRefused::test_one_that_the_log_lost_stays",),
    ),
    Mutant(
        "an event that is marked meanwhile is deleted",
        _ARCHIVE,
        '"digest": document["digest"], "outbox": {"$exists": False}}',
        '"digest": document["digest"]}',
        (f"{_TEST_ARCHIVE}::TestRefused::test_one_that_is_marked_meanwhile_stays",),
    ),
    Mutant(
        "an event goes though its archive entry failed",
        _ARCHIVE,
        "delete_one(unmarked, session=session)",
        "delete_one(unmarked)",
        (f"{_TEST_ARCHIVE}::TestAtomic",),
    ),
    Mutant(
        "reconcile asks by when an event was accepted",
        _RELAYING,
        "_found_at(document, retention) >= since",
        'document["seq"].as_datetime() >= since',
        (
            "tests/contract/test_reconcile.py"
            "::test_what_was_accepted_before_the_backup_and_logged_after_it_is_marked_too",
        ),
    ),
    Mutant(
        "reconcile forgets what an admin deleted",
        _RELAYING,
        "archived.deleted_at >= since and",
        "False and",
        (f"{_TEST_ARCHIVE}::TestSetBack",),
    ),
    # what admins see
    Mutant(
        "a formula goes into the CSV as it is",
        "shared/twofold/exporting.py",
        'return f"\'{value}" if value.startswith(FORMULA) else value',
        "return value",
        ("tests/unit/test_export.py::test_no_cell_of_the_csv_begins_a_formula",),
    ),
    Mutant(
        "an export ends with its first piece",
        "shared/twofold/reading.py",
        "limit(STREAM_PIECE)",
        "limit(STREAM_PIECE - 1)",
        ("tests/contract/test_admin_events.py::TestExport::test_it_goes_on_from_piece_to_piece",),
    ),
    Mutant(
        "a formula inside a value goes into the CSV as it is",
        "shared/twofold/exporting.py",
        'value = _INNER.sub(r"\\1\'", value)',
        "value = str(value)",
        ("tests/unit/test_export.py::test_nor_does_any_where_something_else_divides_the_cells",),
    ),
    Mutant(
        "an event is deleted for a blank reason",
        _PARAMETERS,
        "if not value.strip():",
        "if not value:",
        ("tests/flow/test_admin.py::TestDelete::test_without_a_reason_nothing_is_deleted",),
    ),
    # how much a reader may look through, and get
    Mutant(
        "how much others have is to be felt in how long an answer takes",
        "shared/twofold/reading.py",
        "if scope is not None:",
        "if False:",
        ("tests/contract/test_pages.py::test_how_much_others_have_is_not_to_be_felt",),
    ),
    Mutant(
        "another user's event is read by its id",
        "shared/twofold/reading.py",
        '({FIELDS["user"]: user} if user is not None else {})',
        "{}",
        ("tests/contract/test_pages.py::TestPages::test_only_its_user_gets_an_event",),
    ),
    Mutant(
        "which types others have is told",
        "functions/query/operations.py",
        "answer=Types,\n        of_user=True,",
        "answer=Types,",
        (f"{_TEST_QUERY}::TestOnesOwn::test_types_leak_nothing",),
    ),
    Mutant(
        "a page has as many bytes as its events have",
        "shared/twofold/reading.py",
        "size >= self._page_bytes or ",
        "",
        ("tests/contract/test_pages.py::TestBytes",),
    ),
    Mutant(
        "a filter that has no index looks through everything at once",
        "shared/twofold/scanning.py",
        "if not wanted.asks_more_than(field):",
        "if wanted.text is None:",
        ("tests/contract/test_pages.py::TestSearch",),
    ),
    Mutant(
        "a page ends with its unreadable events",
        "shared/twofold/reading.py",
        "len(page.events) + len(page.unreadable) == wanted.limit",
        "len(page.events) == wanted.limit",
        ("tests/contract/test_pages.py::test_unreadable_events_end_no_page_early",),
    ),
    Mutant(
        "statistics of a busy day look at each event",
        "shared/twofold/statistics.py",
        "if Conditions.query(wanted):",
        "if wanted:",
        ("tests/contract/test_statistics.py::test_they_come_from_an_index",),
    ),
    Mutant(
        "one user takes all the live streams",
        "shared/twofold/live.py",
        "if self._of_caller[caller] >= self._each:",
        "if False:",
        ("tests/contract/test_live.py::test_no_caller_takes_all_the_streams",),
    ),
    Mutant(
        "a live stream outlives its token",
        "shared/twofold/live.py",
        "min(seconds, self._lasts_s)",
        "self._lasts_s",
        ("tests/contract/test_live.py::test_a_stream_ends_when_the_callers_time_is_over",),
    ),
    Mutant(
        "a page of the log's types leads to itself",
        "shared/twofold/event_store.py",
        "if time.monotonic() > until and last != first:",
        "if time.monotonic() > until:",
        ("tests/contract/test_admin_statistics.py::TestTypesOfTheLog",),
    ),
    # places that readers keep
    Mutant(
        "whatever fails at a stream's place, the place is thrown away for it",
        "shared/twofold/live.py",
        "if token is not None and error.code in _LOST:",
        "if token is not None:",
        ("tests/contract/test_live.py::test_trouble_at_a_known_place_is_trouble_and_the_place_stays_good",),
    ),
    Mutant(
        "an altered cursor is taken for one that was given out",
        "shared/twofold/cursors.py",
        "if cursor != cursor_of(place, question):",
        "if not cursor:",
        ("tests/unit/test_filters.py", "tests/contract/test_live.py::test_an_altered_place_never_reaches_the_server"),
    ),
    Mutant(
        "the feed from a time that no log can have is trouble",
        "shared/twofold/feed.py",
        "min(max(int(moment.astimezone(UTC).timestamp()), 0), _LAST_SECOND)",
        "max(int(moment.astimezone(UTC).timestamp()), 0)",
        ("tests/contract/test_feed.py::TestCursor",),
    ),
    # the feed
    Mutant(
        "the feed leaves no room for an insert under way",
        "shared/twofold/feed.py",
        '{"$gt": Timestamp(after.seconds, after.increment), "$lt": settled.up_to}',
        '{"$gt": Timestamp(after.seconds, after.increment)}',
        ("tests/contract/test_feed.py::test_an_event_that_commits_late_is_never_skipped",),
    ),
    # what is stated
    Mutant(
        "a checkpoint comes from the client's clock",
        _MONGO,
        'max(hello["operationTime"].time, int(hello["localTime"].timestamp()))',
        "int(datetime.now().timestamp())",
        (f"{_TEST_CHECKPOINTS}::TestCompleteUpTo::test_the_clock_of_who_states_it_changes_nothing",),
    ),
    Mutant(
        "a checkpoint leaves no room for an insert under way",
        _MONGO,
        "Timestamp(max(now - margin_s, 0), 0)",
        "Timestamp(now, 0)",
        (f"{_TEST_CHECKPOINTS}::TestCompleteUpTo::test_it_stays_below_what_an_insert_under_way_may_add",),
    ),
    Mutant(
        "a checkpoint is put together from several moments",
        _CHECKPOINTS,
        'async with await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority")):',
        "async with self._database.client.start_session():",
        (f"{_TEST_CHECKPOINTS}::TestCompleteUpTo::test_a_reconciliation_that_ends_meanwhile_does_not_end_its_caution",),
    ),
    Mutant(
        "a mark that is redriven meanwhile is in no count",
        _CHECKPOINTS,
        'async with await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority")):',
        "async with self._database.client.start_session():",
        (
            f"{_TEST_CHECKPOINTS}::TestCompleteUpTo"
            "::test_a_mark_that_changes_its_state_meanwhile_is_said_to_be_in_the_first",
        ),
    ),
    Mutant(
        "a checkpoint counts a backlog of any size",
        _CHECKPOINTS,
        "hint=index, limit=self._counted_up_to, session=session)",
        "hint=index, session=session)",
        (f"{_TEST_CHECKPOINTS}::TestCounts::test_no_more_is_counted_than_there_is_time_for",),
    ),
    Mutant(
        "a checkpoint looks past what is pending",
        _CHECKPOINTS,
        "min(settled.up_to, oldest or settled.up_to)",
        "settled.up_to",
        (f"{_TEST_CHECKPOINTS}::TestCompleteUpTo::test_it_is_never_beyond_the_oldest_pending_event",),
    ),
    Mutant(
        "a checkpoint forgets events that were not looked for yet",
        _CHECKPOINTS,
        'for state in ("new", "pending"):',
        'for state in ("pending",):',
        (f"{_TEST_CHECKPOINTS}::TestCompleteUpTo::test_it_is_never_beyond_the_oldest_pending_event",),
    ),
    Mutant(
        "a log that was set back is trusted",
        _CHECKPOINTS,
        "        return there is None\n",
        "        return False\n",
        (f"{_TEST_CHECKPOINTS}::TestSetBack",),
    ),
    Mutant(
        "reconcile lets a conflict expire",
        _RELAYING,
        "await events.mark(conflicting) if conflicting else 0",
        "len(conflicting)",
        ("tests/contract/test_reconcile.py::test_a_conflict_that_it_found_is_stated",),
    ),
    Mutant(
        "a pod that leaves the selector is taken for removed",
        _WATCHING,
        "deleted = deleted and pod.is_removed",
        "deleted = bool(deleted)",
        ("tests/flow/test_pod_events.py::TestLives::test_a_pod_that_leaves_the_selector_is_not_gone",),
    ),
    # what is deployed
    Mutant(
        "the KafkaSource gives up within a day",
        "knative/base/store.yaml",
        "    retry: 450\n",
        "    retry: 45\n",
        (_RULES_HOLD,),
    ),
    Mutant(
        "the KafkaSource begins at the end of the topic",
        "knative/base/store.yaml",
        "initialOffset: earliest",
        "initialOffset: latest",
        (_RULES_HOLD,),
    ),
    Mutant(
        "changed settings don't reach the pods that run",
        "knative/base/names.yaml",
        "envFrom/configMapRef/name}",
        "envFrom/secretRef/name}",
        (_RULES_HOLD,),
    ),
    Mutant(
        "an overlay without a KafkaSource passes",
        "dev/manifests/rules_sources.py",
        "        if len(bring) != 1:\n",
        "        if len(bring) > 1:\n",
        ("tests/manifests/test_rules_sources.py",),
    ),
    Mutant(
        "set-up gives up while MongoDB starts",
        "shared/twofold/setup.py",
        "            if loop.time() + pause_s >= until:\n",
        "            if error.retriable:\n",
        ("tests/contract/test_setup.py::TestIdempotence::test_a_patient_one_tries_again",),
    ),
    Mutant(
        "production lets in who has no token",
        "knative/overlays/production/addresses.yaml",
        "  AUTH_ISSUER:",
        '  AUTH: "off"\n  AUTH_ISSUER:',
        (_RULES_HOLD,),
    ),
    Mutant(
        "production reaches MongoDB in the clear",
        "knative/overlays/production/mongodb.yaml",
        "&tls=true",
        "",
        (_RULES_HOLD,),
    ),
    Mutant(
        "everybody has the rights of pod_events",
        "dev/manifests/rules_access.py",
        '            if subject["kind"] != "ServiceAccount" or',
        '            if subject["kind"] == "ServiceAccount" and',
        ("tests/manifests/test_rules_access.py",),
    ),
    Mutant(
        "a function may be closed to Knative",
        "knative/base/namespace.yaml",
        "        - {protocol: TCP, port: 8012}\n",
        "",
        (_RULES_HOLD,),
    ),
    Mutant(
        "every function may be root",
        "knative/base/every-function.yaml",
        "    runAsNonRoot: true\n",
        "",
        (_RULES_HOLD,),
    ),
    Mutant(
        "production acknowledges what one broker has",
        "knative/overlays/production/topic.yaml",
        'SETUP_TOPIC_MIN_INSYNC_REPLICAS: "2"',
        'SETUP_TOPIC_MIN_INSYNC_REPLICAS: "1"',
        (_RULES_HOLD,),
    ),
    Mutant(
        "the retry budget is never too small",
        "dev/manifests/rules_sources.py",
        "        if budget < BUDGET:\n",
        "        if budget < timedelta(0):\n",
        ("tests/manifests/test_rules_sources.py",),
    ),
    Mutant(
        "the image's user is root",
        "Dockerfile",
        "USER 65532:65532",
        "USER 0:0",
        ("tests/manifests/test_dockerfile.py",),
    ),
    # pods: what they are called
    Mutant(
        "a pod event's id leaves the pod's uid out",
        _POD_IDS,
        'return "/".join([pod_uid, *fact])',
        'return "/".join(fact)',
        (f"{_TEST_LIFECYCLE}::TestIds::test_pods_of_the_same_name_share_no_fact",),
    ),
    Mutant(
        "pod events have random ids",
        _POD_IDS,
        'return "/".join([pod_uid, *fact])',
        'return "/".join([pod_uid, *fact, __import__("uuid").uuid4().hex])',
        (f"{_TEST_LIFECYCLE}::TestIds::test_the_same_fact_has_the_same_id_from_every_state",),
    ),
    Mutant(
        "a container's end is known by its container alone",
        _LIFECYCLE,
        'return _Fact(("container_terminated", about["container"], run), at, payload)',
        'return _Fact(("container_terminated", about["container"]), at, payload)',
        (f"{_TEST_LIFECYCLE}::TestIds::test_the_same_fact_has_the_same_id_from_every_state",),
    ),
    Mutant(
        "a lost container's end is counted with the next run",
        _LIFECYCLE,
        "ORDINARY_WAITS and (end.container_id or waiting.reason == CRASH_LOOP):",
        "ORDINARY_WAITS:",
        (f"{_TEST_LIFECYCLE}::TestIds::test_behind_a_container_that_was_lost_the_next_run_is_counted_at_once",),
    ),
    Mutant(
        "a container that was lost ends twice",
        _LIFECYCLE,
        "    if end and not said_again:\n",
        "    if end:\n",
        (
            f"{_TEST_LIFECYCLE}::TestIds::test_a_container_that_was_lost_once_ended_once",
            f"{_TEST_LIFECYCLE}::TestIds::test_no_state_tells_a_fact_twice",
        ),
    ),
    Mutant(
        "an end is counted with the run that is prepared",
        _LIFECYCLE,
        "waiting.reason not in ORDINARY_WAITS and (end",
        "(end",
        (f"{_TEST_LIFECYCLE}::TestObservations::test_any_states_in_any_order_give_the_same_facts",),
    ),
    Mutant(
        "the correlation id stands in for the aggregate's",
        _POD_IDS,
        "return _first(pod, self.aggregate_keys) or pod.metadata.uid",
        "return _first(pod, self.correlation_keys) or pod.metadata.uid",
        (f"{_TEST_LIFECYCLE}::TestIdentity::test_the_ids_of_the_work_are_each_in_their_own_place",),
    ),
    Mutant(
        "anybody may publish in the cluster's name while no tokens are asked for",
        "shared/twofold/auth.py",
        "frozenset(Right) - {Permission.PUBLISH_RESERVED}",
        "frozenset(Right)",
        ("tests/flow/test_tokens.py::test_the_clusters_name_is_open_to_nobody",),
    ),
    # pods: what happened to them
    Mutant(
        "out of memory is an error exit",
        _CAUSES,
        '        return "oom_killed"\n',
        '        return "error_exit"\n',
        (
            f"{_TEST_LIFECYCLE}::TestTimelines::test_out_of_memory_is_no_error_exit_and_exit_code_137_is_not_out_of_memory",
        ),
    ),
    Mutant(
        "how a container ended is not looked for in its last state",
        _CAUSES,
        "end = status.state.terminated or (status.last_state.terminated if status.state.waiting else None)",
        "end = status.state.terminated",
        (f"{_TEST_LIFECYCLE}::TestFailures::test_the_cause_is_found_where_kubernetes_puts_it",),
    ),
    Mutant(
        "a disruption is no cause",
        _CAUSES,
        "return _DISRUPTIONS.get(disruption.reason) if disruption else None",
        "return None",
        (f"{_TEST_LIFECYCLE}::TestFailures::test_the_cause_is_found_where_kubernetes_puts_it",),
    ),
    Mutant(
        "a finished pod has never run",
        _LIFECYCLE,
        "return bool(started) and all(started)",
        "return False",
        (f"{_TEST_LIFECYCLE}::TestTimelines::test_a_pod_seen_only_at_its_end_has_all_of_its_life",),
    ),
    Mutant(
        "a pod whose node was lost failed when a container ended on it",
        _LIFECYCLE,
        "if not running and (end := _last_end(pod)):",
        "if end := _last_end(pod):",
        (f"{_TEST_LIFECYCLE}::TestTimelines::test_a_life_gives_its_timeline",),
    ),
    Mutant(
        "what Kubernetes does not say is an empty text",
        _LIFECYCLE,
        "reason=end.reason or None,",
        "reason=end.reason,",
        (f"{_TEST_LIFECYCLE}::TestPayloads",),
    ),
    # pods: each fact is told once
    Mutant(
        "a pod's states are told apart by its phase",
        _WATCHING,
        "ids = sorted(event.event_id.bytes for event in self.events)",
        "ids = [self.pod.status.phase.encode()]",
        (f"{_TEST_WATCHING}::test_a_new_fact_in_the_same_phase_is_published",),
    ),
    Mutant(
        "an unchanged pod is published again",
        _WATCHING,
        "if known.get(state.pod.metadata.uid) != state.facts]",
        "]",
        (f"{_TEST_WATCHING}::test_an_unchanged_pod_sent_1000_times_writes_nothing_and_costs_one_read_each",),
    ),
    Mutant(
        "a pod is remembered before its facts are durable",
        _WATCHING,
        "        published = await self._publisher.publish_observed("
        "[event for state in changed for event in state.events])\n"
        "        await self._seen.note([state.seen() for state in changed])\n",
        "        await self._seen.note([state.seen() for state in changed])\n"
        "        published = await self._publisher.publish_observed("
        "[event for state in changed for event in state.events])\n",
        ("tests/flow/test_pod_lives.py::TestKilled::test_at_each_step_of_a_delivery",),
    ),
    Mutant(
        "a later observation is a conflict",
        _PUBLISHING,
        "if isinstance(error, TwofoldError) and not isinstance(error, Conflict)]",
        "if isinstance(error, TwofoldError)]",
        (f"{_TEST_OBSERVING}::test_two_observations_at_once_are_one_fact",),
    ),
    Mutant(
        "what the log has is announced again",
        _PUBLISHING,
        "known = await self._event_store.known(ids) | await self._events.known(ids)",
        "known = await self._events.known(ids)",
        (f"{_TEST_OBSERVING}::test_what_is_in_the_log_alone_is_not_announced_again",),
    ),
    # pods: gone, or not
    Mutant(
        "a pod that is not listed is deleted without a GET",
        _LISTING,
        "found = await asyncio.to_thread(pods.get, pod.namespace, pod.name)",
        "found = None",
        (f"{_TEST_LISTING}::TestNoFalseDeletion::test_a_list_without_it_is_not_believed",),
    ),
    Mutant(
        "another pod of the same name is taken for it",
        _LISTING,
        'if found is not None and found["metadata"]["uid"] == pod.pod_uid:',
        "if found is not None:",
        (f"{_TEST_LISTING}::TestGone::test_another_pod_of_its_name_is_not_it",),
    ),
    Mutant(
        "a missing right is a pod's absence",
        _LISTING,
        "            run.forbidden += 1\n            await self._seen.postpone(pod.pod_uid)\n            return\n",
        "            found = None\n",
        (f"{_TEST_LISTING}::TestNoFalseDeletion::test_without_the_right_to_get_nothing_is_deleted",),
    ),
    Mutant(
        "any 404 is a pod's absence",
        "functions/pod_events/cluster.py",
        'if error.status == 404 and _status(error).get("reason") == "NotFound":',
        "if error.status == 404:",
        (f"{_TEST_LISTING}::TestNoFalseDeletion::test_a_404_from_something_between_is_not_believed",),
    ),
    Mutant(
        "another cluster's pods are looked for",
        "shared/twofold/pod_state.py",
        '            "cluster": cluster,\n            "gone_at"',
        '            "gone_at"',
        (f"{_TEST_SEEN}::test_pods_of_another_cluster_are_not_looked_for",),
    ),
    Mutant(
        "a pod that is there but not listed is looked for each time",
        "shared/twofold/pod_state.py",
        '{"$pow": [2, {"$ifNull": ["$looks", 0]}]}',
        "0",
        (f"{_TEST_SEEN}::test_the_wait_for_one_that_is_there_but_not_listed_grows",),
    ),
    Mutant(
        "a list is waited for on the event loop",
        _LISTING,
        "page = await asyncio.to_thread(pods.page, token)",
        "page = pods.page(token)",
        (f"{_TEST_LISTING}::TestTrouble::test_a_slow_list_stalls_nobody_and_only_one_works_at_a_time",),
    ),
    Mutant(
        "a listing that died keeps others from it for minutes",
        _LISTING,
        "HOLD = timedelta(seconds=30)",
        "HOLD = timedelta(minutes=5)",
        ("tests/flow/test_pod_lives.py::TestKilled::test_while_it_lists",),
    ),
    Mutant(
        "a listing works on beside the one that took its lock",
        _LISTING,
        "        await self.lock.renew()\n",
        "",
        (f"{_TEST_LISTING_PODS}::TestTime::test_one_that_lost_its_lock_stops",),
    ),
    Mutant(
        "a lock that another took is renewed",
        "shared/twofold/locks.py",
        "renewed = await self._locks.update_one(self._ours, ",
        'renewed = await self._locks.update_one({"_id": self._ours["_id"]}, ',
        ("tests/contract/test_lock.py::test_one_that_another_took_is_not_renewed",),
    ),
    Mutant(
        "a listing has no end",
        _LISTING,
        "if self.seconds() >= self.until:",
        "if False:",
        (f"{_TEST_LISTING_PODS}::TestTime",),
    ),
    Mutant(
        "half a list is taken for the whole",
        _LISTING,
        "            if run.unfinished:\n",
        "            if False:\n",
        (f"{_TEST_LISTING_PODS}::TestTime",),
    ),
    Mutant(
        "a pod's deletion is noted before it is durable",
        _LISTING,
        "        run.published += await self._publisher.publish_observed([deletion])\n"
        "        await self._seen.note([replace(pod, deleted=True)])\n",
        "        await self._seen.note([replace(pod, deleted=True)])\n"
        "        run.published += await self._publisher.publish_observed([deletion])\n",
        ("tests/flow/test_pod_lives.py::TestKilled::test_between_a_deletion_and_the_memory_of_it",),
    ),
    Mutant(
        "nobody hears that a right is missing",
        _LISTING,
        "if not run.forbidden:",
        "if False:",
        (f"{_TEST_LISTING_PODS}::TestSaid",),
    ),
    Mutant(
        "a pod that can't be taken is kept as it was understood",
        _LISTING,
        "                await self._publish_one(pod, state, run)\n",
        '                await self._publish_one(state.pod.model_dump(mode="json", by_alias=True), state, run)\n',
        (f"{_TEST_LISTING_PODS}::TestRefused",),
    ),
    Mutant(
        "a pod that came to be ignored is looked for, and told as gone",
        _WATCHING,
        "        if pods:\n",
        "        if False:\n",
        (f"{_TEST_LISTING_PODS}::TestIgnored",),
    ),
    Mutant(
        "each delivery of an unreadable pod is a letter of its own",
        _WATCHING,
        "content = _as_said(body) if type_ is None or type_ in STATES else None",
        "content = None",
        (f"{_TEST_LISTING_PODS}::TestRefused",),
    ),
    Mutant(
        "events that are no pods are one letter",
        _WATCHING,
        "content = _as_said(body) if type_ is None or type_ in STATES else None",
        "content = _as_said(body)",
        (f"{_TEST_LISTING_PODS}::TestRefused",),
    ),
    # who may read and publish what
    Mutant(
        "a user's questions are answered from everybody's events",
        _API,
        "user = caller.visible_user if operation.of_user else None",
        "user = None",
        (f"{_TEST_QUERY}::TestOnesOwn",),
    ),
    Mutant(
        "another user's event is shown by its id",
        "functions/query/operations.py",
        "reader.get(call.parameters.event_id, call.caller.visible_user)",
        "reader.get(call.parameters.event_id)",
        (f"{_TEST_QUERY}::TestOnesOwn::test_another_users_event_is_not_there",),
    ),
    Mutant(
        "a user may name another user",
        _PARAMETERS,
        'values.setdefault("user", user) != user',
        'values.setdefault("user", user) is None',
        (f"{_TEST_QUERY}::TestOnesOwn::test_asking_for_another_user_is_refused",),
    ),
    Mutant(
        "a live stream shows everybody's events",
        "shared/twofold/live.py",
        '[{"$match": {"operationType": "insert"} | query}]',
        '[{"$match": {"operationType": "insert"}}]',
        (f"{_TEST_QUERY}::TestStream::test_a_user_gets_their_own_alone",),
    ),
    Mutant(
        "a user publishes in another user's name",
        _AUTH,
        "if user is not None and user != self.subject and",
        "if False and",
        (f"{_TEST_AUTH}::TestPublishing",),
    ),
    Mutant(
        "a token for another audience is taken",
        _AUTH,
        'options={"require": ["exp", "iss", "aud", "sub"]}',
        'options={"require": ["exp", "iss", "aud", "sub"], "verify_aud": False}',
        (f"{_TEST_AUTH}::test_a_token_with_a_wrong_claim_is_refused",),
    ),
    Mutant(
        "a token's own header says how it is checked",
        _AUTH,
        "            key,\n            algorithms=[key.algorithm_name],",
        '            key.key,\n            algorithms=[header["alg"]],',
        (f"{_TEST_AUTH}::test_an_unsigned_token_is_refused",),
    ),
    Mutant(
        "any algorithm of the issuer's keys is taken",
        _AUTH,
        "if key.algorithm_name not in self._settings.auth_algorithms:",
        "if False:",
        (f"{_TEST_AUTH}::test_an_algorithm_that_is_not_listed_is_refused",),
    ),
    Mutant(
        "a checked token is good though its key was withdrawn",
        _AUTH,
        "min(principal.until, fresh_until)",
        "principal.until",
        (f"{_TEST_AUTH}::TestKeys::test_a_key_that_was_withdrawn_is_good_no_longer",),
    ),
    Mutant(
        "a key that was just rotated in is a final refusal",
        _AUTH,
        "if key_id not in self._keys and self._fetched_at < asked_at:",
        "if False:",
        (f"{_TEST_AUTH}::TestKeys::test_a_key_that_was_just_rotated_in_is_trouble_and_never_a_refusal",),
    ),
    Mutant(
        "publish ignores parameters that it does not know",
        "functions/publish/main.py",
        'if request.scope["query_string"]:',
        "if False:",
        ("tests/flow/test_bad_input.py::test_a_parameter_that_publish_does_not_know_is_refused_by_name",),
    ),
    Mutant(
        "tokens are asked for only where somebody said so",
        "shared/twofold/settings.py",
        'auth: Literal["on", "off"] = "on"',
        'auth: Literal["on", "off"] = "off"',
        (f"{_TEST_AUTH}::TestSettings::test_a_function_without_an_issuer_does_not_start_and_says_what_is_missing",),
    ),
    # what a question may be, and what it finds
    Mutant(
        "an unknown parameter is passed over",
        _PARAMETERS,
        '            raise Malformed(f"unknown parameter; those that are known: {known}", printable(name))\n',
        "            continue\n",
        ("tests/unit/test_parameters.py::test_an_unknown_parameter_is_named",),
    ),
    Mutant(
        "a limit of 0 is no limit",
        _FILTERS,
        "Field(ge=1, le=MAX_LIMIT",
        "Field(ge=0, le=MAX_LIMIT",
        ("tests/unit/test_parameters.py::test_a_limit_is_a_limit",),
    ),
    Mutant(
        "a cursor is good for any question",
        "shared/twofold/cursors.py",
        'b"twofold cursor 2" + question',
        'b"twofold cursor 2"',
        ("tests/unit/test_filters.py::test_a_cursor_of_another_question_is_refused",),
    ),
    Mutant(
        "a page passes over events of the time at which the one before ended",
        _FILTERS,
        '{"timestamp": position.timestamp, "_id": {f"{earlier}e": position.event_id}}',
        '{"timestamp": position.timestamp}',
        ("tests/contract/test_pages.py::test_every_combination_gives_what_a_plain_filter_gives",),
    ),
    Mutant(
        "a search that was cut does not say so",
        "shared/twofold/reading.py",
        "= place, True, seen",
        "= place, False, seen",
        ("tests/contract/test_pages.py::test_a_search_that_runs_out_of_time_says_so_and_goes_on",),
    ),
    # what is told of it
    Mutant(
        "a refusal is not counted",
        _PUBLISHING,
        "        if isinstance(error, Rejected):\n            self._telemetry",
        "        if False:\n            self._telemetry",
        ("tests/contract/test_telemetry.py::test_what_is_refused_for_good_counts_by_its_reason",),
    ),
    Mutant(
        "a dead letter is not counted",
        _LETTERS,
        "self._telemetry.record(LETTERS, 1, ",
        "self._telemetry.record(LETTERS, 0, ",
        ("tests/contract/test_telemetry.py::test_what_store_does_counts_as_stored_duplicate_or_dead_letter",),
    ),
    Mutant(
        "duplicates count as accepted",
        _PUBLISHING,
        "self._telemetry.record(ACCEPTED, results.count(None))",
        "self._telemetry.record(ACCEPTED, len(results))",
        ("tests/contract/test_telemetry.py::test_what_was_there_already_counts_as_a_duplicate",),
    ),
    Mutant(
        "a producer's traceparent is replaced",
        "shared/twofold/cloudevents.py",
        '        if traceparent is None or "traceparent" in self.attributes:\n',
        "        if traceparent is None:\n",
        (f"{_TEST_TRACING}::test_a_producers_own_trace_is_continued_and_never_replaced",),
    ),
    Mutant(
        "the span of publish is not sent on",
        _OTEL,
        "item._replace(written=item.encoded.within(traceparent), traceparent=traceparent)",
        "item._replace(traceparent=traceparent)",
        (f"{_TEST_TRACING}::test_an_event_without_a_trace_is_given_the_span_of_publish",),
    ),
    Mutant(
        "the trace of the request is forgotten",
        _RECEIVING,
        "    return received if traceparent is None else received._replace(traceparent=traceparent)\n",
        "    return received\n",
        (f"{_TEST_RECEIVING}::test_the_trace_of_the_request_is_that_of_the_hop_in_every_mode",),
    ),
    Mutant(
        "opentelemetry is loaded by everybody",
        "shared/twofold/reporting.py",
        "        if not (self.metrics or self.traces):\n            return SILENT\n",
        "",
        ("tests/unit/test_otel_settings.py::test_without_a_collector_nothing_of_opentelemetry_is_imported",),
    ),
    Mutant(
        "what is left at the end is not told",
        _HTTP,
        "    atexit.register(finish)\n",
        "",
        ("tests/flow/test_telemetry.py::test_a_function_that_ends_tells_what_it_has_not_told_yet",),
    ),
    Mutant(
        "a function leaves without a word",
        _HTTP,
        "        if self._leaving:\n",
        "        if False:\n",
        ("tests/flow/test_leaving.py::test_after_sigterm_an_answer_says_that_its_connection_closes",),
    ),
)
