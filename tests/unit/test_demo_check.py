"""The demo's comparison can fail: each way to be wrong is seen, and only that one."""

from copy import deepcopy
from typing import Any
from uuid import UUID

import pytest

from dev.demo import percentile
from dev.demo_check import Findings, compare
from dev.demo_events import BATCH_SIZE, BATCHES, BINARY, STRUCTURED, TWICE, first_sendings, orders, second_sendings

pytestmark = pytest.mark.dev

Document = dict[str, Any]
SOUND = Findings(lost=0, doubled=0, differing=0, unexpected=0)

ACCEPTED: list[Document] = [
    {
        "id": f"00000000-0000-4000-8000-00000000000{n}",
        "source": "/demo",
        "type": "com.example.order.placed",
        "subject": "order",
        "data": {"n": n},
    }
    for n in range(3)
]


@pytest.fixture
def events() -> list[Document]:
    """Both collections hold this when nothing is wrong."""
    return [
        {
            "_id": UUID(event["id"]),
            "event_type": event["type"],
            "aggregate_id": event["subject"],
            "timestamp": 1,
            "metadata": {"service_name": event["source"]},
            "payload": event["data"],
            "digest": bytes([event["data"]["n"]] * 32),
        }
        for event in deepcopy(ACCEPTED)
    ]


@pytest.fixture
def log(events: list[Document]) -> list[Document]:
    """The same again, in documents of their own."""
    return deepcopy(events)


def test_equal_collections_are_sound(events: list[Document], log: list[Document]) -> None:
    assert compare(ACCEPTED, events, log) == SOUND


def test_an_event_missing_from_either_collection_is_lost(events: list[Document], log: list[Document]) -> None:
    assert compare(ACCEPTED, events[1:], log).lost == 1
    assert compare(ACCEPTED, events, log[:2]).lost == 1
    assert compare(ACCEPTED, events[1:], log[:2]).lost == 2


def test_one_event_under_two_ids_is_doubled(events: list[Document], log: list[Document]) -> None:
    """The server keeps `_id` unique, so a check by `_id` could never see this."""
    log.append({**log[0], "_id": UUID(int=7)})
    assert compare(ACCEPTED, events, log) == Findings(lost=0, doubled=1, differing=0, unexpected=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("digest", bytes(31)), ("payload", {"n": 1, "more": 1}), ("timestamp", 2), ("_id", UUID(int=7))],
)
def test_collections_that_disagree_differ(
    events: list[Document], log: list[Document], name: str, value: object
) -> None:
    log[1][name] = value
    assert compare(ACCEPTED, events, log) == Findings(lost=0, doubled=0, differing=1, unexpected=0)


def test_what_both_hold_but_nobody_sent_differs(events: list[Document], log: list[Document]) -> None:
    """A conflict that overwrote both collections is no less wrong for being the same in both."""
    for document in (events[2], log[2]):
        document["payload"] = {"n": 2, "forged": True}
    assert compare(ACCEPTED, events, log).differing == 1


def test_a_stored_event_that_was_refused_is_unexpected(events: list[Document], log: list[Document]) -> None:
    assert compare(ACCEPTED[:2], events, log) == Findings(lost=0, doubled=0, differing=0, unexpected=1)


def test_the_demo_sends_each_event_once_and_some_twice() -> None:
    made = orders("run")
    first = [marker for submission in first_sendings(made) for marker in submission.markers]
    again = [marker for submission in second_sendings(made) for marker in submission.markers]
    assert sorted(first) == list(range(BINARY + STRUCTURED + BATCHES * BATCH_SIZE))
    assert len(set(again)) == len(again) == TWICE


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile(range(100), 0.50) == 50
    assert percentile(range(100), 0.99) == 99
    assert percentile([], 0.5) is None
