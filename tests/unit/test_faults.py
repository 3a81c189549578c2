"""The verdict of the fault suite can fail: it finds each way to be wrong, and only that way."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from bson.timestamp import Timestamp

from dev.comparison import SentEvent, read_by_publish
from dev.faults.bounds import BOUNDS, at_bounds
from dev.faults.changes import Change, Deleted, Inserted, change_of
from dev.faults.checkpoints import overclaims
from dev.faults.kinds import KINDS, SURE, kinds_for
from dev.faults.plan import FULL, SHORT, FaultPlan, PlannedFault, draw_faults
from dev.faults.poison import SHAPES, altered, conflicting
from dev.faults.poisoner import SentPoison
from dev.faults.publishers import BackgroundLoad, Item, Ledger, encode, other_content
from dev.faults.readers import FeedReader
from dev.faults.verdict import Evidence, judge
from dev.load.events import new_order
from dev.load.producer import answers_of
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.errors import DigestMismatch, Rejected

pytestmark = pytest.mark.dev

Document = dict[str, Any]

SENT = [SentEvent.of(new_order("run", marker, random.Random(marker))) for marker in range(4)]
LATE = SentEvent.of(other_content(SENT[3].event))
POISON = [str(UUID(int=number, version=4)) for number in range(3)]


def at(second: int) -> Timestamp:
    """Return a time of the cluster's clock."""
    return Timestamp(1000 + second, 1)


def stored(sent: SentEvent, second: int, **more: object) -> Document:
    """Return the document of an event, in either collection."""
    return {**read_by_publish(sent.event).to_document(), "order": sent.marker, "seq": at(second), **more}


def inserted(sent: SentEvent, second: int) -> Change:
    """Return the insert of an event into `events`."""
    return Inserted(sent.event_id, at(second), sent.digest, dict(sent.event["data"]), at(second))


def dead_letter(marker: str | None, name: str = "ce-marker", **more: object) -> Document:
    """Return a dead letter. Without a marker it holds no poison."""
    headers = [{"name": name, "value": marker.encode()}] if marker else []
    first = {"_id": UUID(int=7), "headers": headers, "reason": "malformed", "state": "dead", "history": []}
    return {**first, "event_id": None, "digest": None, **more}


def checkpoint(second: int, watermark: int | None, **more: object) -> Document:
    """Return a completeness checkpoint of `second`."""
    figures: Document = dict.fromkeys(("pending", "dead", "unreadable", "stuck"), 0)
    figures |= {"conflicting": 1, "log_regressed": False}
    complete = at(watermark) if watermark is not None else None
    measured = datetime.fromtimestamp(at(second).time, UTC)
    return {"kind": "checkpoint", "seq": at(second), "at": measured, "low_watermark": complete, **figures, **more}


SOUND = Evidence(
    acknowledged={sent.event_id: sent for sent in SENT},
    late={LATE.event_id: LATE},
    made=4,
    events=[stored(SENT[0], 0), stored(SENT[1], 1), stored(LATE, 30, outbox={"state": "conflicting"})],
    event_store=[stored(sent, 10 + number) for number, sent in enumerate(SENT)],
    dead_letters=[
        dead_letter(POISON[0]),
        dead_letter(POISON[1], "ce-kafkaheadermarker"),
        dead_letter(None, reason="undelivered"),
        dead_letter(None, reason="identity-conflict", event_id=LATE.event_id, digest=LATE.digest),
    ],
    checkpoints=[checkpoint(12, 0), checkpoint(14, 3), checkpoint(50, 40)],
    changes=[
        *(inserted(sent, number) for number, sent in enumerate(SENT)),
        Deleted(SENT[2].event_id, at(20)),
        Deleted(SENT[3].event_id, at(20)),
        inserted(LATE, 30),
    ],
    log_changes=[inserted(sent, 10 + number) for number, sent in enumerate(SENT)],
    feeds={"near": {sent.event_id for sent in SENT}, "slow": {sent.event_id for sent in SENT}},
    outages=[{"an event": 2}],
    poison=SentPoison(acknowledged={POISON[0], POISON[1]}, unacknowledged={POISON[2]}),
)
"""Two events are in `events`, two have expired. After that, other content was published under one of their ids."""


def wrong(**more: object) -> dict[str, object]:
    """Return the figures of the verdict that differ from the figures of sound evidence."""
    verdict, sound = judge(replace(SOUND, **more)), judge(SOUND).figures()  # type: ignore[arg-type]
    assert verdict.complaints()
    return {name: count for name, count in verdict.figures().items() if count != sound[name]}


def changed(documents: Any, position: int, **more: object) -> list[Document]:
    """Return the documents, with a change in a single document."""
    return [{**document, **more} if n == position else document for n, document in enumerate(documents)]


def without(items: Any, position: int) -> list[Any]:
    """Return the items except the item at the position."""
    return [item for n, item in enumerate(items) if n != position]


class TestVerdict:
    def test_sound_evidence_gets_no_complaint(self) -> None:
        verdict = judge(SOUND)
        assert verdict.complaints() == []
        assert (len(verdict.poison_sent), len(verdict.poison_kept), verdict.figures()["checkpoints_ok"]) == (2, 2, True)

    def test_an_event_that_is_not_in_the_log_is_lost(self) -> None:
        """The checkpoints that claimed the event are wrong too."""
        assert wrong(event_store=without(SOUND.event_store, 0), log_changes=without(SOUND.log_changes, 0)) == {
            "lost": 1,
            "overclaimed": 2,
            "checkpoints_ok": False,
        }

    def test_an_event_that_is_not_in_events_and_never_left_it_is_lost(self) -> None:
        assert wrong(events=without(SOUND.events, 0)) == {"lost": 1}

    def test_an_event_that_expired_before_it_was_in_the_log_is_lost_though_it_came_there_later(self) -> None:
        early = [
            Deleted(SENT[2].event_id, at(11)) if change == SOUND.changes[4] else change for change in SOUND.changes
        ]
        assert wrong(changes=early) == {"lost": 1}

    def test_an_accepted_conflict_without_an_outbox_entry_is_lost(self) -> None:
        assert wrong(events=without(SOUND.events, 2)) == {"lost": 1}
        assert wrong(events=changed(SOUND.events, 2, outbox={"state": "pending"})) == {"lost": 1}

    def test_one_event_under_two_ids_is_doubled(self) -> None:
        twice = [*SOUND.event_store, {**SOUND.event_store[0], "_id": UUID(int=9)}]
        assert wrong(event_store=twice) == {"doubled": 1}
        assert wrong(events=[*SOUND.events, {**SOUND.events[0], "_id": UUID(int=9)}]) == {"doubled": 1}

    @pytest.mark.parametrize("more", [{"payload": {"n": 0, "price": 7}}, {"digest": bytes(32)}])
    def test_a_payload_or_digest_that_was_not_sent_differs(self, more: Document) -> None:
        assert wrong(events=changed(SOUND.events, 0, **more)) == {"differing": 1}
        assert wrong(event_store=changed(SOUND.event_store, 1, payload={"n": 1})) == {"differing": 1}

    def test_an_event_that_differed_only_until_it_expired_differs(self) -> None:
        other = Inserted(SENT[2].event_id, at(2), SENT[2].digest, {"n": 2}, at(2))
        assert wrong(changes=[*SOUND.changes[:2], other, *SOUND.changes[3:]]) == {"differing": 1}

    def test_poison_in_the_log_is_unexpected(self) -> None:
        forged = {"_id": UUID(int=9), "seq": at(9), "digest": b"", "payload": {"foreign": True}}
        assert wrong(event_store=[*SOUND.event_store, forged]) == {"unexpected": 1}

    def test_a_sound_event_among_the_dead_letters_is_unexpected(self) -> None:
        refused = dead_letter(None, reason="digest-mismatch", event_id=SENT[0].event_id, digest=SENT[0].digest)
        assert wrong(dead_letters=[*SOUND.dead_letters, refused]) == {"unexpected": 1}

    def test_poison_must_be_kept_once(self) -> None:
        assert wrong(dead_letters=without(SOUND.dead_letters, 1)) == {"poison_kept": 1}
        assert wrong(dead_letters=[*SOUND.dead_letters, dead_letter(POISON[0])]) == {"doubled": 1}

    def test_poison_that_perhaps_never_reached_store_counts_if_it_was_kept(self) -> None:
        """The broker lost it with its log, or Kafka never acknowledged it."""
        gone = replace(SOUND, poison=SentPoison({*POISON}, set(), gone={POISON[0], POISON[2]}))
        assert (len(judge(gone).poison_sent), len(judge(gone).poison_kept)) == (2, 2)
        kept = replace(SOUND, dead_letters=[*SOUND.dead_letters, dead_letter(POISON[2])])
        assert (len(judge(kept).poison_sent), len(judge(kept).poison_kept)) == (3, 3)

    def test_a_dead_letter_that_two_redrives_sent_is_found(self) -> None:
        history = [{"what": what} for what in ("redriven", "failed again", "redriven", "redriven", "failed again")]
        assert wrong(dead_letters=changed(SOUND.dead_letters, 0, history=history)) == {"redriven_twice": 1}

    def test_a_checkpoint_that_claimed_an_event_before_it_was_in_the_log_stays_wrong(self) -> None:
        early = [checkpoint(12, 4), *SOUND.checkpoints[1:]]
        assert wrong(checkpoints=early) == {"overclaimed": 1, "checkpoints_ok": False}

    def test_a_low_watermark_claims_only_the_events_below_it(self) -> None:
        """It does not claim an event with an equal `seq`."""
        exactly = [checkpoint(12, 3), *SOUND.checkpoints[1:]]
        assert judge(replace(SOUND, checkpoints=exactly)).found["overclaimed"] == []

    def test_an_event_that_expired_after_its_document_was_removed_from_the_log_is_no_loss(self) -> None:
        removed = [*SOUND.log_changes, Deleted(SENT[2].event_id, at(15)), inserted(SENT[2], 40)]
        assert judge(replace(SOUND, log_changes=removed, checkpoints=SOUND.checkpoints[2:])).complaints() == []

    @pytest.mark.fault("A1")
    def test_a_checkpoint_over_a_removed_document_is_wrong_until_the_document_is_back(self) -> None:
        """A checkpoint without a low watermark claims nothing. The document of another event does not fill the hole."""
        removed = [*SOUND.log_changes, Deleted(SENT[0].event_id, at(20)), inserted(SENT[0], 40)]
        during = [
            SOUND.checkpoints[0],
            checkpoint(25, None),
            checkpoint(30, 3),
            checkpoint(35, 28),
            SOUND.checkpoints[2],
        ]
        assert wrong(log_changes=removed, checkpoints=during) == {"overclaimed": 2, "checkpoints_ok": False}
        silent = [checkpoint(n, None) for n in range(20, 40)]
        assert (
            judge(replace(SOUND, log_changes=removed, checkpoints=[*silent, SOUND.checkpoints[2]])).complaints() == []
        )

    @pytest.mark.fault("A1")
    def test_a_removed_document_that_comes_back_as_another_event_stays_missing(self) -> None:
        other = Inserted(SENT[0].event_id, at(22), b"other", {"n": 0}, at(22))
        removed = [*SOUND.log_changes, Deleted(SENT[0].event_id, at(20)), other, inserted(SENT[0], 40)]
        found = judge(replace(SOUND, log_changes=removed, checkpoints=[checkpoint(30, 25), SOUND.checkpoints[2]]))
        assert len(found.found["overclaimed"]) == 1

    @pytest.mark.fault("A1")
    def test_an_event_counts_from_its_last_acceptance_before_the_log_lost_it(self) -> None:
        """Its first acceptance is not known any more after it left `events` and was published again."""
        event_id = SENT[0].event_id
        accepted = [inserted(SENT[0], 1), Deleted(event_id, at(10)), inserted(SENT[0], 20)]

        def claims(second: int, watermark: int, removed: int) -> int:
            log = [inserted(SENT[0], 2), Deleted(event_id, at(removed)), inserted(SENT[0], 40)]
            return len(overclaims([checkpoint(second, watermark)], accepted, {}, log))

        assert claims(30, 15, removed=25) == 0
        assert claims(30, 21, removed=25) == 1
        assert claims(18, 5, removed=12) == 1

    @pytest.mark.fault("A1")
    def test_a_checkpoint_under_way_during_the_removal_may_have_seen_the_document(self) -> None:
        removed = [*SOUND.log_changes, Deleted(SENT[0].event_id, at(30)), inserted(SENT[0], 40)]
        under_way = checkpoint(30, 29) | {"seq": at(31)}
        assert (
            judge(replace(SOUND, log_changes=removed, checkpoints=[under_way, SOUND.checkpoints[2]])).complaints() == []
        )

    @pytest.mark.fault("A7")
    def test_each_reader_of_the_feed_must_have_every_event_of_the_log(self) -> None:
        everything, *_ = SOUND.feeds.values()
        assert wrong(feeds={"near": everything, "slow": {SENT[0].event_id}}) == {"feed_gaps": 3}
        without_log = replace(SOUND, feeds={"near": {UUID(int=5), *everything}}, event_store=SOUND.event_store[1:])
        assert judge(without_log).found["feed_gaps"] == [], "an event that is not in the log is lost, and no gap"

    @pytest.mark.fault("A5")
    def test_an_event_with_more_than_two_records_in_an_outage_was_sent_again(self) -> None:
        assert wrong(outages=[{"an event": 2}, {"an event": 3, "another": 1}]) == {"sent_again": 1}

    @pytest.mark.parametrize(
        "more",
        [{name: 1} for name in ("pending", "dead", "unreadable", "stuck")]
        + [{"conflicting": 0}, {"log_regressed": True}],
    )
    def test_the_last_checkpoint_must_agree(self, more: Document) -> None:
        assert wrong(checkpoints=changed(SOUND.checkpoints, 2, **more)) == {"checkpoints_ok": False}

    def test_the_last_checkpoint_must_reach_beyond_the_last_event(self) -> None:
        assert wrong(checkpoints=[checkpoint(50, 30)]) == {"checkpoints_ok": False}
        assert wrong(checkpoints=[checkpoint(50, None)]) == {"checkpoints_ok": False}
        assert wrong(checkpoints=[]) == {"checkpoints_ok": False}


def drawn(seed: int, count: int) -> list[PlannedFault]:
    return list(draw_faults(seed, list(KINDS), count, FULL.pace))


class TestPlan:
    def test_the_seed_gives_the_plan(self) -> None:
        assert drawn(1, 25) == drawn(1, 25)
        assert drawn(1, 25) != drawn(2, 25)

    def test_each_kind_comes_before_any_comes_twice(self) -> None:
        assert len({planned.name for planned in drawn(3, 12)}) == 12
        assert {planned.name for planned in drawn(3, 30)} == set(KINDS)

    @pytest.mark.parametrize("form", [FULL, SHORT])
    @pytest.mark.parametrize("seed", range(20))
    def test_every_run_damages_the_log_or_reaches_a_bound(self, form: FaultPlan, seed: int) -> None:
        plan = draw_faults(seed, list(KINDS), form.faults, form.pace, first=SURE, sure=form.sure)
        names = [planned.name for planned in plan]
        assert len(names) == len({*names}) == form.faults
        assert len({*names} & {*SURE}) >= form.sure >= 2

    @pytest.mark.parametrize("broker", ["tansu", "apache"])
    def test_there_are_at_least_twelve_kinds(self, broker: str) -> None:
        assert len(kinds_for(broker)) >= 12

    @pytest.mark.parametrize(
        "name", ["kill_publish", "stop_publish", "stop_between_clock_and_insert", "delivered_twice"]
    )
    def test_relay_has_an_event_to_send_again_before_it_is_killed(self, name: str) -> None:
        """Without a running `publish`, or with another source, the lost log holds no event to send again."""
        assert KINDS["kill_relay_after_sending"].parts & KINDS[name].parts


def arrived(headers: Any) -> list[tuple[bytes, bytes]]:
    """Return a CloudEvent's Kafka headers as KafkaSource delivers them."""
    return [(name.replace("ce_", "ce-").encode(), value) for name, value in headers]


class TestPoison:
    def test_an_altered_record_fails_for_its_digest(self) -> None:
        record = altered(SENT[0], POISON[0])
        with pytest.raises(DigestMismatch):
            decode_kafka(arrived(record.headers), record.value or b"")

    def test_a_forged_record_is_valid_except_for_its_id(self) -> None:
        record = conflicting(SENT[0], POISON[0])
        event = decode_kafka(arrived(record.headers), record.value or b"").event
        assert event.event_id == SENT[0].event_id
        assert event.digest != SENT[0].digest

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_every_other_shape_is_refused_and_carries_its_marker(self, shape: Callable[[str], Any]) -> None:
        record = shape(POISON[0])
        assert POISON[0].encode() in dict(record.headers).values()
        with pytest.raises(Rejected):
            decode_kafka(arrived(record.headers), record.value or b"")


class TestPublishers:
    def test_other_content_under_an_id_is_kept_apart_from_the_first_content(self) -> None:
        ledger = Ledger()
        ledger.take(Item(SENT[3], "new"))
        ledger.take(Item(LATE, "other"))
        ledger.take(Item(SENT[3], "again"))
        assert ledger.acknowledged == {SENT[3].event_id: SENT[3]}
        assert ledger.late == {LATE.event_id: LATE}
        assert LATE.event_id == SENT[3].event_id
        assert LATE.digest != SENT[3].digest

    def test_several_events_are_a_batch(self) -> None:
        request = encode([Item(sent, "new") for sent in SENT], random.Random(1))
        assert request.headers["content-type"] == "application/cloudevents-batch+json"

    def test_the_seed_decides_the_mode_of_each_request(self) -> None:
        first, second = ([encode([Item(SENT[0], "new")], rng) for _ in range(30)] for rng in map(random.Random, (7, 7)))
        assert first == second
        assert len({len(request.headers) for request in first}) > 1

    def test_publish_may_refuse_an_event_at_a_bound_and_no_other(self) -> None:
        load = BackgroundLoad("http://127.0.0.1:9", "run", 1, 1.0, list)
        for intent in ("bound", "new"):
            load._note(Item(SENT[0], intent), {"status": 422, "title": "invalid"})
        assert len(load.ledger.surprises) == 1


class TestAnswers:
    """The answers of `publish` for the events of a request."""

    REFUSED, UNAVAILABLE = {"status": 422, "title": "invalid"}, {"status": 503, "title": "unavailable"}

    @pytest.mark.parametrize("status", [207, 422, 503])
    def test_the_results_of_a_batch_are_its_answers(self, status: int) -> None:
        """With 422 and 503 no event was accepted, and each event still has its own result."""
        results = [self.REFUSED, self.UNAVAILABLE]
        assert answers_of(httpx.Response(status, json={"results": results}), 2) == results

    def test_a_problem_is_the_answer_for_every_event(self) -> None:
        for problem in (self.REFUSED, self.UNAVAILABLE):
            response = httpx.Response(int(str(problem["status"])), json=problem)
            assert [answer["status"] for answer in answers_of(response, 2)] == [problem["status"]] * 2

    def test_an_answer_of_a_gateway_is_the_answer_for_every_event(self) -> None:
        assert answers_of(httpx.Response(502, text="no"), 2) == [{"status": 502, "text": "no"}] * 2


def test_made_up_events_lie_within_the_last_hour() -> None:
    """Readers show the last 24 hours by default."""
    rng, now = random.Random(1), datetime.now(UTC)
    times = [datetime.fromisoformat(event["time"]) for _ in range(99) if "time" in (event := new_order("run", 1, rng))]
    assert len(times) > 50
    assert all(now - timedelta(hours=1) < time < now for time in times)


@pytest.mark.fault("B1")
@pytest.mark.parametrize("seed", range(5))
def test_some_events_at_a_bound_are_accepted_and_some_are_refused(seed: int) -> None:
    rng = random.Random(seed)
    found = list(at_bounds((new_order("run", marker, rng) for marker in range(10 * len(BOUNDS))), rng))
    accepted = 0
    for event in found:
        with suppress(Rejected):
            accepted += SentEvent.of(event).event is event
    assert len(found) / 2 < accepted < len(found)


class TestFeedReader:
    """The steps of docs/operations.md."""

    def reader(self, *answers: httpx.Response) -> tuple[FeedReader, httpx.Client]:
        following = iter(answers)
        reader = FeedReader("near", "http://audit/feed", 10, 0.0)
        return reader, httpx.Client(transport=httpx.MockTransport(lambda _: next(following)))

    def page(self, *stored: int) -> httpx.Response:
        events = [{"event_id": str(UUID(int=n)), "stored_at": f"2026-01-01T00:00:{n:02}Z"} for n in stored]
        return httpx.Response(200, json={"events": events, "cursor": "c", "safe_time": "2026-01-01T00:01:00Z"})

    @pytest.mark.parametrize(("lost_at", "since"), [(9, "2026-01-01T00:00:09Z"), (30, "2026-01-01T00:00:12Z")])
    def test_a_reader_begins_again_at_the_loss_or_at_its_last_event(self, lost_at: int, since: str) -> None:
        reader, client = self.reader(self.page(5, 12), httpx.Response(503), httpx.Response(410), httpx.Response(410))
        assert reader._read(client, {}) == {"cursor": "c"}
        assert reader._read(client, {"cursor": "c"}) == {"cursor": "c"}, "503: wait"
        assert reader._read(client, {"cursor": "c"}) == {"cursor": "c"}, "410: wait for the operator"
        reader.told(datetime(2026, 1, 1, 0, 0, lost_at, tzinfo=UTC))
        assert reader._read(client, {"cursor": "c"}) == {"since": since}
        assert (reader.got, reader.failures) == ({UUID(int=5), UUID(int=12)}, [])

    def test_a_reader_is_at_the_end_after_an_empty_page_only(self) -> None:
        reader, client = self.reader(self.page(5), self.page(), httpx.Response(400, text="no"))
        reader._read(client, {})
        assert reader.read_to.year == 1
        reader._read(client, {})
        assert reader.read_to.minute == 1
        reader._read(client, {})
        assert reader.failures == ["400 no"]


def test_the_watch_reads_a_change_stream() -> None:
    key = {"documentKey": {"_id": UUID(int=1)}, "clusterTime": at(1)}
    full = {"seq": at(0), "digest": b"d", "payload": {"n": 1}}
    assert change_of({"operationType": "insert", "fullDocument": full, **key}) == Inserted(
        UUID(int=1), at(0), b"d", {"n": 1}, at(1)
    )
    assert change_of({"operationType": "delete", **key}) == Deleted(UUID(int=1), at(1))
