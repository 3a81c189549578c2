"""Made-up events in CloudEvents' JSON format, and the requests that carry them."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

EventJson = dict[str, Any]
"""An event in CloudEvents' JSON format."""

STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
_LONGEST_AGO_MS = 1_000_000
_START = datetime.now(UTC) - timedelta(milliseconds=_LONGEST_AGO_MS)
"""The earliest `time` of an event: within the default ranges of readers, which are hours and days."""


class EventRequest(NamedTuple):
    """The headers and the body of a POST request."""

    headers: dict[str, str]
    body: bytes


def new_order(run: str, marker: int, rng: random.Random) -> EventJson:
    """Return a valid event whose payload has the marker as `n`.

    Sizes differ. A fifth of the events has an id that is not a UUID, and a fifth has no `time`.
    """
    event = {
        "specversion": "1.0",
        "id": f"order/{run}/{marker}" if rng.random() < 0.2 else str(UUID(int=rng.getrandbits(128), version=4)),
        "source": f"/{run}",
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
        event["time"] = (_START + timedelta(milliseconds=rng.randrange(_LONGEST_AGO_MS))).isoformat()
    return event


def binary(events: Sequence[EventJson]) -> EventRequest:
    """Return the request for a single event in binary mode. All attributes of `new_order` are ASCII."""
    (event,) = events
    attributes = {name: value for name, value in event.items() if name not in {"data", "datacontenttype"}}
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    return EventRequest(headers | {"content-type": event["datacontenttype"]}, json.dumps(event["data"]).encode())


def structured(events: Sequence[EventJson]) -> EventRequest:
    """Return the request for a single event in structured mode."""
    (event,) = events
    return EventRequest({"content-type": STRUCTURED_TYPE}, json.dumps(event).encode())


def batch(events: Sequence[EventJson]) -> EventRequest:
    """Return the request for any number of events."""
    return EventRequest({"content-type": BATCH_TYPE}, json.dumps(events).encode())
