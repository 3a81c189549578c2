"""What the load publishes: sound events of all kinds, each with a marker of its own. Pure."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from twofold.cloudevents.decode_http import IncomingEvent, decode_http

CloudEvent = dict[str, Any]
"""An event in CloudEvents' JSON format."""

STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as its producer made it, and what Twofold must make of it."""

    marker: int
    """In the payload as `n`: by it the event is found again, whatever its id is."""
    event_id: UUID
    digest: bytes
    payload: dict[str, Any]
    event: CloudEvent


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a request, and why it is sent."""

    sent: Sent
    intent: Literal["new", "again", "other"]
    """`again`: the same once more. `other`: other content under an id that was accepted."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is posted."""

    headers: dict[str, str]
    body: bytes


def received_of(event: CloudEvent) -> IncomingEvent:
    """What `publish` reads from a request with `event`."""
    received = decode_http([(b"content-type", STRUCTURED_TYPE.encode())], json.dumps(event).encode(), _START, 1)
    if not isinstance(received, IncomingEvent):
        raise TypeError("one event, not a batch")
    return received


def sent_of(event: CloudEvent) -> Sent:
    """What `event` must become; its payload is what was sent, not what was understood."""
    made = received_of(event).event
    return Sent(event["data"]["n"], made.event_id, made.digest, event["data"], event)


def new_event(run: str, marker: int, rng: random.Random) -> CloudEvent:
    """A sound event. Some have an id that is no UUID, some no `time`, and sizes differ."""
    event = {
        "specversion": "1.0",
        "id": f"order/{run}/{marker}" if rng.random() < 0.2 else str(UUID(int=rng.getrandbits(128), version=4)),
        "source": f"/faults/{run}",
        "type": "com.example.order.placed",
        "subject": f"order-{marker % 97}",
        "datacontenttype": "application/json",
        "correlationid": f"{run}-{marker}",
        "data": {
            "n": marker,
            "item": f"tea № {marker}, 茶",
            "price": marker / 8,
            "big": marker << 40,
            "lines": [{"sku": marker, "gift": rng.random() < 0.5}] * rng.randint(1, 5),
            "note": "x" * int(rng.paretovariate(1.2) * 20 % 4000),
        },
    }
    if rng.random() < 0.8:
        event["time"] = (_START + timedelta(milliseconds=rng.randrange(10**9))).isoformat()
    return event


def other_content(event: CloudEvent) -> CloudEvent:
    """The same id, another event."""
    return {**event, "data": {**event["data"], "price": -1.5}}


def request_of(items: Sequence[Item], rng: random.Random) -> Request:
    """The request for some events: a batch, or for one alone any of the three modes."""
    mode = rng.choice(("binary", "structured", "batch")) if len(items) == 1 else "batch"
    event = items[0].sent.event
    if mode == "batch":
        return Request({"content-type": BATCH_TYPE}, json.dumps([item.sent.event for item in items]).encode())
    if mode == "structured":
        return Request({"content-type": STRUCTURED_TYPE}, json.dumps(event).encode())
    attributes = {name: value for name, value in event.items() if name not in {"data", "datacontenttype"}}
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    return Request(headers | {"content-type": event["datacontenttype"]}, json.dumps(event["data"]).encode())
