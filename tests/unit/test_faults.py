"""The fault suite's verdict can fail: each way to be wrong is seen, and only that one. And its plan is the seed's."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from bson.timestamp import Timestamp

from dev.faults.kinds import KINDS, kinds_for
from dev.faults.load import Ledger
from dev.faults.plan import FULL, plan
from dev.faults.poison import SHAPES, Sendings, altered, conflicting
from dev.faults.producer import Item, Sent, new_event, other_content, request_of, sent_of
from dev.faults.verdict import Evidence, Verdict, judge
from dev.faults.watch import Change, Deleted, Inserted, change_of
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.errors import DigestMismatch, Rejected

pytestmark = pytest.mark.dev

Document = dict[str, Any]

SENT = [sent_of(new_event("run", marker, random.Random(marker))) for marker in range(4)]
LATE = sent_of(other_content(SENT[3].event))
POISON = [str(UUID(int=number, version=4)) for number in range(3)]


def at(second: int) -> Timestamp:
    """A moment of the cluster's clock."""
    return Timestamp(1000 + second, 1)


def stored(sent: Sent, second: int, **more: object) -> Document:
    """An event's document, in either collection."""
    return {"_id": sent.event_id, "seq": at(second), "digest": sent.digest, "payload": dict(sent.payload), **more}


def inserted(sent: Sent, second: int) -> Change:
    """An event that came into `events`."""
    return Inserted(sent.event_id, at(second), sent.digest, dict(sent.payload))


def letter(marker: str | None, name: str = "ce-marker", **more: object) -> Document:
    """A dead letter; without a marker it holds no poison."""
    headers = [{"name": name, "value": marker.encode()}] if marker else []
    first = {"_id": UUID(int=7), "headers": headers, "reason": "malformed", "state": "dead", "history": []}
    return {**first, "event_id": None, "digest": None, **more}


def checkpoint(second: int, up_to: int | None, **more: object) -> Document:
    """A checkpoint that was made at `second`."""
    says: Document = {"pending": 0, "dead": 0, "unreadable": 0, "conflicting": 1, "log_regressed": False}
    complete = at(up_to) if up_to is not None else None
    return {"kind": "checkpoint", "seq": at(second), "low_watermark": complete, **says, **more}


SOUND = Evidence(
    acknowledged={sent.event_id: sent for sent in SENT},
    late={LATE.event_id: LATE},
    made=4,
    events=[stored(SENT[0], 0), stored(SENT[1], 1), stored(LATE, 30, outbox={"state": "conflicting"})],
    event_store=[stored(sent, 10 + number) for number, sent in enumerate(SENT)],
    dead_letters=[
        letter(POISON[0]),
        letter(POISON[1], "ce-kafkaheadermarker"),
        letter(None, reason="undelivered"),
        letter(None, reason="identity-conflict", event_id=LATE.event_id, digest=LATE.digest),
    ],
    checkpoints=[checkpoint(12, 0), checkpoint(14, 3), checkpoint(50, 40)],
    changes=[
        *(inserted(sent, number) for number, sent in enumerate(SENT)),
        Deleted(SENT[2].event_id, at(20)),
        Deleted(SENT[3].event_id, at(20)),
        inserted(LATE, 30),
    ],
    poison=Sendings(acknowledged={POISON[0], POISON[1]}, unacknowledged={POISON[2]}),
)
"""Two events are in `events`, two have expired; one id was published again with other content after that."""


def wrong(**more: object) -> dict[str, object]:
    """What the verdict says, beyond the poison, where it isn't what it says of what is sound."""
    verdict, sound = judge(replace(SOUND, **more)), judge(SOUND)  # type: ignore[arg-type]
    names = [name for name in Verdict.__dataclass_fields__ if name != "details"]
    assert verdict.complaints()
    return {name: getattr(verdict, name) for name in names if getattr(verdict, name) != getattr(sound, name)}


def changed(documents: Any, position: int, **more: object) -> list[Document]:
    """The documents, one of them changed."""
    return [{**document, **more} if n == position else document for n, document in enumerate(documents)]


def without(items: Any, position: int) -> list[Any]:
    """All but one."""
    return [item for n, item in enumerate(items) if n != position]


class TestVerdict:
    def test_what_is_sound_gets_no_complaint(self) -> None:
        verdict = judge(SOUND)
        assert verdict.complaints() == []
        assert (verdict.poison_sent, verdict.poison_kept, verdict.checkpoints_ok) == (2, 2, True)

    def test_an_event_that_is_not_in_the_log_is_lost(self) -> None:
        """And a checkpoint that claimed it was wrong, and the event that expired did so too early."""
        assert wrong(event_store=without(SOUND.event_store, 0)) == {
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

    def test_an_accepted_conflict_that_nobody_will_look_at_is_lost(self) -> None:
        assert wrong(events=without(SOUND.events, 2)) == {"lost": 1}
        assert wrong(events=changed(SOUND.events, 2, outbox={"state": "pending"})) == {"lost": 1}

    def test_one_event_under_two_ids_is_doubled(self) -> None:
        twice = [*SOUND.event_store, {**SOUND.event_store[0], "_id": UUID(int=9)}]
        assert wrong(event_store=twice) == {"doubled": 1}
        assert wrong(events=[*SOUND.events, {**SOUND.events[0], "_id": UUID(int=9)}]) == {"doubled": 1}

    @pytest.mark.parametrize("more", [{"payload": {"n": 0, "price": 7}}, {"digest": bytes(32)}])
    def test_another_payload_or_digest_than_was_sent_differs(self, more: Document) -> None:
        assert wrong(events=changed(SOUND.events, 0, **more)) == {"differing": 1}
        assert wrong(event_store=changed(SOUND.event_store, 1, payload={"n": 1})) == {"differing": 1}

    def test_an_event_that_differed_only_until_it_expired_differs(self) -> None:
        other = Inserted(SENT[2].event_id, at(2), SENT[2].digest, {"n": 2})
        assert wrong(changes=[*SOUND.changes[:2], other, *SOUND.changes[3:]]) == {"differing": 1}

    def test_poison_in_the_log_is_unexpected(self) -> None:
        forged = {"_id": UUID(int=9), "seq": at(9), "digest": b"", "payload": {"foreign": True}}
        assert wrong(event_store=[*SOUND.event_store, forged]) == {"unexpected": 1}

    def test_a_sound_event_among_the_dead_letters_is_unexpected(self) -> None:
        refused = letter(None, reason="digest-mismatch", event_id=SENT[0].event_id, digest=SENT[0].digest)
        assert wrong(dead_letters=[*SOUND.dead_letters, refused]) == {"unexpected": 1}

    def test_poison_must_be_kept_once(self) -> None:
        assert wrong(dead_letters=without(SOUND.dead_letters, 1)) == {"poison_kept": 1}
        assert wrong(dead_letters=[*SOUND.dead_letters, letter(POISON[0])]) == {"doubled": 1}

    def test_poison_that_may_have_been_seen_by_nobody_counts_if_it_was_kept(self) -> None:
        """It went with the broker's log; or Kafka never acknowledged it."""
        gone = replace(SOUND, poison=Sendings({*POISON}, set(), gone={POISON[0], POISON[2]}))
        assert (judge(gone).poison_sent, judge(gone).poison_kept) == (2, 2)
        kept = replace(SOUND, dead_letters=[*SOUND.dead_letters, letter(POISON[2])])
        assert (judge(kept).poison_sent, judge(kept).poison_kept) == (3, 3)

    def test_a_letter_that_two_redrives_sent_is_seen(self) -> None:
        history = [{"what": what} for what in ("redriven", "failed again", "redriven", "redriven", "failed again")]
        assert wrong(dead_letters=changed(SOUND.dead_letters, 0, history=history)) == {"redriven_twice": 1}

    def test_a_checkpoint_that_claimed_an_event_before_it_was_in_the_log_is_wrong_for_ever(self) -> None:
        early = [checkpoint(12, 4), *SOUND.checkpoints[1:]]
        assert wrong(checkpoints=early) == {"overclaimed": 1, "checkpoints_ok": False}

    def test_a_checkpoint_speaks_of_what_was_before_its_moment_alone(self) -> None:
        """The event of that very moment is not yet in it."""
        exactly = [checkpoint(12, 3), *SOUND.checkpoints[1:]]
        assert judge(replace(SOUND, checkpoints=exactly)).overclaimed == 0

    @pytest.mark.parametrize(
        "more", [{"pending": 1}, {"dead": 1}, {"unreadable": 1}, {"conflicting": 0}, {"log_regressed": True}]
    )
    def test_the_last_checkpoint_must_agree(self, more: Document) -> None:
        assert wrong(checkpoints=changed(SOUND.checkpoints, 2, **more)) == {"checkpoints_ok": False}

    def test_the_last_checkpoint_must_reach_beyond_the_last_event(self) -> None:
        assert wrong(checkpoints=[checkpoint(50, 30)]) == {"checkpoints_ok": False}
        assert wrong(checkpoints=[checkpoint(50, None)]) == {"checkpoints_ok": False}
        assert wrong(checkpoints=[]) == {"checkpoints_ok": False}


class TestPlan:
    def test_the_seed_gives_the_plan(self) -> None:
        assert list(plan(1, list(KINDS), 25, FULL)) == list(plan(1, list(KINDS), 25, FULL))
        assert list(plan(1, list(KINDS), 25, FULL)) != list(plan(2, list(KINDS), 25, FULL))

    def test_each_kind_comes_before_any_comes_twice(self) -> None:
        assert len({planned.name for planned in plan(3, list(KINDS), 12, FULL)}) == 12
        assert {planned.name for planned in plan(3, list(KINDS), 25, FULL)} == set(KINDS)

    @pytest.mark.parametrize("broker", ["tansu", "apache"])
    def test_there_are_at_least_twelve_kinds(self, broker: str) -> None:
        assert len(kinds_for(broker)) >= 12

    @pytest.mark.parametrize(
        "name", ["kill_publish", "stop_publish", "stop_between_clock_and_insert", "delivered_twice"]
    )
    def test_relay_has_something_to_send_again_before_it_is_killed_for_that(self, name: str) -> None:
        """Nothing is lost with the log if `publish` did not send, or if another source delivers: they never meet."""
        assert KINDS["kill_relay_after_sending"].parts & KINDS[name].parts


def arrived(headers: Any) -> list[tuple[bytes, bytes]]:
    """A CloudEvent's Kafka headers as KafkaSource delivers them."""
    return [(name.replace("ce_", "ce-").encode(), value) for name, value in headers]


class TestPoison:
    def test_an_altered_record_fails_for_its_digest(self) -> None:
        record = altered(SENT[0], POISON[0])
        with pytest.raises(DigestMismatch):
            decode_kafka(arrived(record.headers), record.value or b"")

    def test_a_forged_record_is_sound_but_for_its_id(self) -> None:
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


class TestLoad:
    def test_other_content_under_an_id_is_kept_apart_from_what_was_first(self) -> None:
        ledger = Ledger()
        ledger.take(Item(SENT[3], "new"))
        ledger.take(Item(LATE, "other"))
        ledger.take(Item(SENT[3], "again"))
        assert ledger.acknowledged == {SENT[3].event_id: SENT[3]}
        assert ledger.late == {LATE.event_id: LATE}
        assert LATE.event_id == SENT[3].event_id
        assert LATE.digest != SENT[3].digest

    def test_several_events_are_a_batch(self) -> None:
        request = request_of([Item(sent, "new") for sent in SENT], random.Random(1))
        assert request.headers["content-type"] == "application/cloudevents-batch+json"


def test_the_watch_reads_what_a_change_stream_says() -> None:
    key = {"documentKey": {"_id": UUID(int=1)}, "clusterTime": at(1)}
    full = {"seq": at(0), "digest": b"d", "payload": {"n": 1}}
    assert change_of({"operationType": "insert", "fullDocument": full, **key}) == Inserted(
        UUID(int=1), at(0), b"d", {"n": 1}
    )
    assert change_of({"operationType": "delete", **key}) == Deleted(UUID(int=1), at(1))
