"""The order of publication over HTTP and on the command line: every reader gives events of one time in this order."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from tests.flow.test_pod_events import arrived, expected, send
from tests.helpers import View, an_event
from tests.pods import names, new_life
from twofold.cli.app import app
from twofold.event.model import Event

pytestmark = pytest.mark.guarantee("R23", "R26")

BATCH = 100

Line = dict[str, Any]
Read = Callable[[View, dict[str, Any], str], list[Line]]
"""Return the events of a reader, by filters and in the order `newest` or `oldest`."""


def paged(function: str, limit: int, **fixed: str) -> Read:
    def read(flow: View, asked: dict[str, Any], order: str) -> list[Line]:
        found: list[Line] = []
        parameters: dict[str, Any] = asked | fixed | {"order": order, "limit": limit}
        while True:
            answer = flow.http.get(f"{flow.stack.functions[function].url}/events", params=parameters)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["events"]
            if page["next"] is None:
                return found
            parameters |= {"cursor": page["next"]}

    return read


def admin_export(form: str) -> Read:
    def read(flow: View, asked: dict[str, Any], order: str) -> list[Line]:
        url = f"{flow.stack.functions['admin'].url}/export"
        answer = flow.http.get(url, params=asked | {"order": order, "format": form})
        assert answer.status_code == 200, answer.text
        return lines_of(answer.text, form)

    return read


def lines_of(text: str, form: str) -> list[Line]:
    if form == "csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if form == "json":
        found: list[Line] = json.loads(text)
        return found
    return [json.loads(line) for line in text.splitlines()]


def _options(asked: dict[str, Any], order: str) -> list[str]:
    options = [f"--order={order}"]
    for name, value in asked.items():
        options += [f"--{name}={one}" for one in (value if isinstance(value, list) else [value])]
    return options


def _run(flow: View, *arguments: str) -> str:
    env = flow.stack.function_environment("operator") | {"COLUMNS": "200", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, arguments, env=env)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def history(flow: View, asked: dict[str, Any], order: str) -> list[Line]:
    found: list[Line] = []
    more: list[str] = []
    while True:
        page = json.loads(_run(flow, "history", "--json", "--limit=37", *_options(asked, order), *more))
        found += page["events"]
        if page["next"] is None:
            return found
        more = [f"--cursor={page['next']}"]


def cli_export(collection: str) -> Read:
    def read(flow: View, asked: dict[str, Any], order: str) -> list[Line]:
        options = ["--format=csv", f"--collection={collection}", *_options(asked, order)]
        return lines_of(_run(flow, "export", *options, "-"), "csv")

    return read


READERS: dict[str, Read] = {
    "query": paged("query", 7),
    "query, one by one": paged("query", 1),
    "audit": paged("audit", 7),
    "admin by time": paged("admin", 9),
    "admin by type": paged("admin", 9, sort="type"),
    "admin by service": paged("admin", 9, sort="service"),
    **{f"the admin's export as {form}": admin_export(form) for form in ("csv", "json", "ndjson")},
    "twofold history": history,
    **{f"twofold export of {name}": cli_export(name) for name in ("events", "event_store")},
}


@pytest.fixture(scope="module")
def published(flow: View) -> list[Event]:
    """Publish a file of events of one millisecond in batches. The ids are random, and say nothing of the order."""
    name = uuid4().hex
    same: dict[str, Any] = {"event_type": f"order.{name}", "aggregate_id": name, "timestamp": an_event().timestamp}
    events = [an_event(**same, payload={"n": number}) for number in range(300)]
    for first in range(0, len(events), BATCH):
        assert flow.publish_all(events[first : first + BATCH]).status_code == 202
    assert flow.arrive(events)
    return events


@pytest.mark.fault("A8")
@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_events_of_one_millisecond_reads_in_its_order(
    flow: View, published: list[Event], reader: str, order: str
) -> None:
    found = READERS[reader](flow, {"aggregate": published[0].aggregate_id}, order)
    assert [line["event_id"] for line in found] == [
        str(event.event_id) for event in (published if order == "oldest" else published[::-1])
    ]
    orders = [int(line["order"]) for line in found]
    assert orders == sorted(set(orders), reverse=order == "newest")
    assert {type(line["order"]) for line in found} == {str}


def test_both_collections_have_the_same_order(flow: View, published: list[Event]) -> None:
    asked = {"aggregate_id": published[0].aggregate_id}
    orders = [
        {document["_id"]: document["order"] for document in flow.database[name].find(asked)}
        for name in ("events", "event_store")
    ]
    assert orders[0] == orders[1]
    assert len({*orders[0].values()}) == len(published)
    assert {found["order"] for found in flow.database.event_store.find(asked | {"order": {"$type": "long"}})} == {
        *orders[0].values()
    }


def test_the_relay_keeps_the_order(flow: View) -> None:
    """The record of `publish` never came: the relay makes it anew from `events`."""
    event = an_event()
    flow.accept(event)
    assert flow.relayed([event])
    stored = flow.document("event_store", event)
    assert stored is not None
    assert stored["order"] == event.order


def test_a_repeated_event_keeps_its_first_order(flow: View) -> None:
    event = an_event()
    orders = []
    for _ in range(2):
        assert flow.publish(event).status_code == 202
        document = flow.document("events", event)
        assert document is not None
        orders.append(document["order"])
    assert orders[0] == orders[1] > event.order


def test_a_replayed_event_has_an_order_that_is_not_trusted(flow: View) -> None:
    event = an_event()
    assert flow.publish(event).status_code == 202
    replay = {"ce-replayid": "r", "ce-twofolddigest": event.digest.hex(), "ce-twofoldorder": "7"}
    answer = flow.publish(event, **replay)
    assert (answer.status_code, answer.json()["result"]) == (202, "duplicate")
    document = flow.document("events", event)
    assert document is not None
    assert document["order"] > 7
    for wrong in ("", "07", "x"):
        assert flow.publish(event, **replay | {"ce-twofoldorder": wrong}).status_code == 400


def test_a_timeline_of_related_events_is_in_the_order_of_publication(flow: View, published: list[Event]) -> None:
    middle = published[150]
    answer = flow.http.get(f"{flow.stack.functions['admin'].url}/events/{middle.event_id}")
    assert [line["event_id"] for line in answer.json()["timeline"]] == [
        str(event.event_id) for event in published[100:201]
    ]


STARTS = ("pod.created", "pod.scheduled", "pod.initialized", "pod.running")


@pytest.fixture(scope="module")
def lives(flow: View) -> dict[str, str]:
    """Send the recorded lives, and return their names by the pods' uids."""
    made = {name: new_life(name) for name in names()}
    for states in made.values():
        assert {send(flow, state).status_code for state in states} == {200}
    for states in made.values():
        assert arrived(flow, states[0].uid, expected(states))
    return {states[0].uid: name for name, states in made.items()}


@pytest.mark.fault("A8")
@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("reader", [name for name in READERS if name not in ("query, one by one", "admin by type")])
def test_every_pods_life_reads_created_scheduled_initialized_running(
    flow: View, lives: dict[str, str], reader: str
) -> None:
    asked = {"type": list(STARTS), "from": "2026-07-01T08:00:00Z", "to": "2026-07-01T10:00:00Z"}
    found: dict[str, list[str]] = {uid: [] for uid in lives}
    for line in READERS[reader](flow, asked, "oldest"):
        payload = json.loads(line["payload"]) if isinstance(line["payload"], str) else line["payload"]
        found.get(payload["pod_uid"], []).append(line["event_type"])
    assert len(found) == 25
    for uid, types in found.items():
        assert types == [type_ for type_ in STARTS if type_ in types], lives[uid]


def test_a_fact_of_a_later_delivery_has_a_later_order(flow: View) -> None:
    """It comes after the facts of its moment that were published before."""
    states = new_life("config_error")
    orders: dict[str, int] = {}
    for state in states:
        assert send(flow, state).status_code == 200
        documents = list(flow.database.events.find({"payload.pod_uid": states[0].uid}))
        new = {document["event_type"]: document["order"] for document in documents}
        assert all(order > max(orders.values(), default=0) for type_, order in new.items() if type_ not in orders)
        assert new | orders == new
        orders = new
    assert sorted(orders, key=orders.__getitem__)[:3] == list(STARTS[:3])
