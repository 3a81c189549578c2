"""The comparison can fail: it finds each way to be wrong, and only that way."""

import random
from copy import deepcopy
from typing import Any
from uuid import UUID

import pytest

from dev.comparison import SentEvent, compare, read_by_publish
from dev.demo.run import percentile
from dev.demo.submissions import (
    BATCH_SIZE,
    BATCHES,
    BINARY,
    STRUCTURED,
    TWICE,
    first_submissions,
    orders,
    repeated_submissions,
)
from dev.load.events import new_order

pytestmark = pytest.mark.dev

Stored = dict[str, Any]
SOUND: dict[str, list[str]] = {"lost": [], "doubled": [], "differing": [], "unexpected": []}
ACCEPTED = [SentEvent.of(new_order("run", marker, random.Random(marker))) for marker in range(3)]


def stored(sent: SentEvent) -> Stored:
    """Return the document of an event, in either collection."""
    return read_by_publish(sent.event).to_document() | {"order": sent.marker}


@pytest.fixture
def events() -> list[Stored]:
    """Return the contents of both collections without a difference."""
    return [stored(sent) for sent in deepcopy(ACCEPTED)]


@pytest.fixture
def log(events: list[Stored]) -> list[Stored]:
    """Return the same contents in separate documents."""
    return deepcopy(events)


def found(events: list[Stored], log: list[Stored], **options: Any) -> dict[str, int]:
    """Return the kinds of the found differences, with their counts."""
    findings = compare(options.pop("accepted", ACCEPTED), events, log, **options)
    return {name: len(found) for name, found in findings.items() if found}


def test_equal_collections_are_sound(events: list[Stored], log: list[Stored]) -> None:
    assert compare(ACCEPTED, events, log) == SOUND


def test_an_event_missing_from_either_collection_is_lost(events: list[Stored], log: list[Stored]) -> None:
    assert found(events[1:], log) == {"lost": 1}
    assert found(events, log[:2]) == {"lost": 1}
    assert found(events[1:], log[:2]) == {"lost": 2}


def test_an_event_missing_from_both_collections_is_lost_once(events: list[Stored], log: list[Stored]) -> None:
    assert found(events[1:], log[1:]) == {"lost": 1}


def test_an_expired_event_may_be_missing_from_events_alone(events: list[Stored], log: list[Stored]) -> None:
    expired = {ACCEPTED[0].event_id}
    assert found(events[1:], log, expired=expired) == {}
    assert found(events, log[1:], expired=expired) == {"lost": 1}


def test_one_event_under_two_ids_is_doubled(events: list[Stored], log: list[Stored]) -> None:
    """The server keeps `_id` unique, so a comparison by `_id` could never see this."""
    log.append({**log[0], "_id": UUID(int=7)})
    assert found(events, log) == {"doubled": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("digest", bytes(31)),
        ("payload", {"n": 1, "more": 1}),
        ("timestamp", 2),
        ("order", 2),
        ("order", None),
        ("_id", UUID(int=7)),
        ("event_type", "another.type"),
        ("aggregate_id", "another"),
        ("metadata", {"service_name": "/another"}),
    ],
)
def test_collections_that_disagree_differ(events: list[Stored], log: list[Stored], name: str, value: object) -> None:
    log[1][name] = value
    assert found(events, log) == {"differing": 1}
    assert found(log, events) == {"differing": 1}


def test_an_event_that_came_back_after_expiry_may_have_another_time_and_order(
    events: list[Stored], log: list[Stored]
) -> None:
    events[1] |= {"timestamp": 2, "order": 2}
    assert found(events, log, expired={ACCEPTED[1].event_id}) == {}


def test_a_wrong_event_in_both_collections_differs(events: list[Stored], log: list[Stored]) -> None:
    """A conflict that overwrote both collections is wrong although the collections are equal."""
    for document in (events[2], log[2]):
        document["payload"] = {"n": 2, "forged": True}
    assert found(events, log) == {"differing": 1}


def test_a_stored_event_that_was_refused_is_unexpected(events: list[Stored], log: list[Stored]) -> None:
    assert found(events, log, accepted=ACCEPTED[:2]) == {"unexpected": 1}
    assert found(events, log, accepted=ACCEPTED[:2], known=range(3)) == {}


def test_a_late_conflict_may_be_in_events_and_not_in_the_log(events: list[Stored], log: list[Stored]) -> None:
    late = SentEvent.of({**ACCEPTED[1].event, "data": {"n": 1, "other": True}})
    conflict = stored(late)
    expired = {late.event_id}
    assert found([events[0], conflict, events[2]], log, late=[late], expired=expired) == {}
    assert found(events, [log[0], conflict, log[2]], late=[late], expired=expired) == {"differing": 1}


def test_the_demo_sends_each_event_once_and_some_twice() -> None:
    made = orders("run")
    first = [event["data"]["n"] for submission in first_submissions(made) for event in submission.events]
    again = [event["data"]["n"] for submission in repeated_submissions(made) for event in submission.events]
    assert sorted(first) == list(range(BINARY + STRUCTURED + BATCHES * BATCH_SIZE))
    assert len(set(again)) == len(again) == TWICE


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile(range(100), 0.50) == 50
    assert percentile(range(100), 0.99) == 99
    assert percentile([], 0.5) is None
