"""What the demo publishes: sound events in every mode, the same ones again, and ones that must be refused. Pure."""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

CloudEvent = dict[str, Any]
"""An event in CloudEvents' JSON format."""

BINARY = 300
STRUCTURED = 300
BATCHES = 5
BATCH_SIZE = 100
TWICE = 50

STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"


@dataclass(frozen=True)
class Submission:
    """One request: what is sent, which events it holds by their markers, and what is to come of it."""

    headers: dict[str, str]
    body: bytes
    markers: tuple[int, ...]
    expected: str = "accepted"
    """`accepted`, `duplicate`, `rejected` or `conflict`."""


def orders(run: str) -> list[CloudEvent]:
    """Sound events. Each payload carries a marker of its own, `n`, by which it is found again whatever its id is.

    Some have an id that is no UUID, so their identity is derived; some have no `time`, so it is filled in.
    """
    return [_order(run, n) for n in range(BINARY + STRUCTURED + BATCHES * BATCH_SIZE)]


def _order(run: str, n: int) -> CloudEvent:
    event = {
        "specversion": "1.0",
        "id": f"order/{run}/{n}" if n % 5 == 0 else str(uuid.uuid4()),
        "source": f"/demo/{run}",
        "type": "com.example.order.placed",
        "subject": f"order-{n % 97}",
        "datacontenttype": "application/json",
        "correlationid": f"{run}-{n}",
        "data": {"n": n, "item": f"tea № {n}, 茶", "price": n / 8, "lines": [{"sku": n, "gift": n % 2 == 0}]},
    }
    if n % 7:
        event["time"] = (datetime.now(UTC) - timedelta(seconds=n)).isoformat()
    return event


def binary(event: CloudEvent, expected: str = "accepted") -> Submission:
    """The request for one event in binary mode. The attributes here are ASCII, so nothing is to be encoded."""
    attributes = {name: value for name, value in event.items() if name not in {"data", "datacontenttype"}}
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    headers["content-type"] = event["datacontenttype"]
    return Submission(headers, json.dumps(event["data"]).encode(), (event["data"]["n"],), expected)


def structured(event: CloudEvent, expected: str = "accepted") -> Submission:
    """The request for one event in structured mode."""
    return Submission({"content-type": STRUCTURED_TYPE}, json.dumps(event).encode(), (event["data"]["n"],), expected)


def batch(events: Sequence[CloudEvent]) -> Submission:
    """The request for many events."""
    markers = tuple(event["data"]["n"] for event in events)
    return Submission({"content-type": BATCH_TYPE}, json.dumps(events).encode(), markers)


def first_sendings(events: Sequence[CloudEvent]) -> Iterator[Submission]:
    """Every event once: single in binary mode, single in structured mode, and in batches."""
    yield from map(binary, events[:BINARY])
    yield from map(structured, events[BINARY : BINARY + STRUCTURED])
    for start in range(BINARY + STRUCTURED, len(events), BATCH_SIZE):
        yield batch(events[start : start + BATCH_SIZE])


def second_sendings(events: Sequence[CloudEvent]) -> Iterator[Submission]:
    """Some events of every kind again, each in a mode that it was not sent in before."""
    for position, event in enumerate(events[:: len(events) // TWICE][:TWICE]):
        again = structured if event["data"]["n"] < BINARY or position % 2 else binary
        yield again(event, expected="duplicate")


def refused(events: Sequence[CloudEvent]) -> Iterator[Submission]:
    """A handful of malformed ones, and one with the id of an event that was accepted and other data."""
    sound = {**events[0], "id": str(uuid.uuid4())}
    plain = binary(sound)
    without_id = {name: value for name, value in plain.headers.items() if name != "ce-id"}
    yield Submission(without_id, plain.body, (-1,), "rejected")
    yield Submission(plain.headers | {"ce-specversion": "0.3"}, plain.body, (-1,), "rejected")
    yield Submission(plain.headers | {"ce-source": "/has a space"}, plain.body, (-1,), "rejected")
    yield Submission(plain.headers, b'{"n": -1', (-1,), "rejected")
    yield Submission(plain.headers, b"[1, 2]", (-1,), "rejected")
    yield Submission(plain.headers | {"content-type": "text/plain"}, b"n = -1", (-1,), "rejected")
    yield structured({**events[1], "data": {"n": -1}}, expected="conflict")
