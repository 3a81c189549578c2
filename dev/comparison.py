"""The comparison of accepted events with the documents of `events` and of `event_store`. Pure.

The comparison finds an event by the marker `n` in its payload, not by `_id`. Because MongoDB keeps `_id` unique, a
comparison by `_id` would not see an event that is stored under two ids.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from dev.load.events import STRUCTURED_TYPE, EventJson
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.event.model import Event
from twofold.event.order import is_order

Stored = Mapping[str, Any]
"""A document of either collection."""

Findings = dict[str, list[str]]
"""The names of the wrong events for each way to be wrong."""

_SHARED = ("timestamp", "order", "metadata")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def read_by_publish(event: EventJson) -> Event:
    """Return the event that `publish` reads from a request with `event`."""
    received = decode_http([(b"content-type", STRUCTURED_TYPE.encode())], json.dumps(event).encode(), _NOW, 1)
    if not isinstance(received, IncomingEvent):
        raise TypeError("structured mode carries one event, not a batch")
    return received.event


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event as its producer sent it, with the identity and the digest that Twofold must give it."""

    event: EventJson
    event_id: UUID
    digest: bytes

    @classmethod
    def of(cls, event: EventJson) -> "SentEvent":
        """Compute identity and digest as `publish` does."""
        read = read_by_publish(event)
        return cls(event, read.event_id, read.digest)

    @property
    def marker(self) -> int:
        """The number in the payload by which the comparison finds the event."""
        marker: int = self.event["data"]["n"]
        return marker

    def has_content(self, digest: bytes, payload: Any) -> bool:
        """Compare the digest, and the payload as it was sent."""
        return self.digest == digest and self.event["data"] == payload

    def is_stored_as(self, document: Stored) -> bool:
        """Compare the document with the attributes as they were sent: a wrong reading in `publish` is found too."""
        metadata = document["metadata"]
        stored = (str(document["id"]), metadata["service_name"], document["event_type"], document["aggregate_id"])
        return (
            document["_id"] == self.event_id
            and is_order(document.get("order"))
            and self.has_content(document["digest"], document.get("payload"))
            and stored == tuple(self.event[name] for name in ("id", "source", "type", "subject"))
        )


def compare(
    accepted: Iterable[SentEvent],
    events: Sequence[Stored],
    event_store: Sequence[Stored],
    *,
    known: Collection[int] | None = None,
    late: Iterable[SentEvent] = (),
    expired: Collection[UUID] = (),
) -> Findings:
    """Compare the events that got a 2xx with the documents of both collections.

    The findings are `lost` (a collection lacks the event), `doubled` (documents beyond an event's first in a
    collection), `differing` (from the sent event, or between the collections) and `unexpected` (never sent, or not
    accepted).

    `known` has the markers that may be stored; the default is the accepted markers. `late` has accepted events with the
    id and the marker of an older event and with other content: `events` may hold either. `expired` has the ids of
    events that left `events` at least once: they may be missing there, or may have come back with another time and
    order.
    """
    sent = {event.marker: event for event in accepted}
    versions = {event.marker: (sent.get(event.marker), event) for event in late}
    current, logged = _first_of_each(events), _first_of_each(event_store)

    def differs(marker: int) -> bool:
        event, now, log = sent[marker], current.get(marker), logged.get(marker)
        if log and not event.is_stored_as(log):
            return True
        if now and not any(version and version.is_stored_as(now) for version in versions.get(marker, (event,))):
            return True
        return bool(now and log and event.event_id not in expired and any(now[name] != log[name] for name in _SHARED))

    lost = {marker for marker, event in sent.items() if marker not in current and event.event_id not in expired}
    lost |= sent.keys() - logged.keys()
    unexpected = {marker for marker in current.keys() | logged.keys() if marker not in (known or sent)}
    return {
        "lost": [f"event {marker}" for marker in lost],
        "doubled": [*_surplus("events", events), *_surplus("event_store", event_store)],
        "differing": [f"event {marker}" for marker in sent if differs(marker)],
        "unexpected": [f"event {marker}" for marker in unexpected],
    }


def _first_of_each(documents: Iterable[Stored]) -> dict[Any, Stored]:
    found: dict[Any, Stored] = {}
    for document in documents:
        found.setdefault(document["payload"].get("n"), document)
    return found


def _surplus(collection: str, documents: Iterable[Stored]) -> list[str]:
    counted = Counter(document["payload"].get("n") for document in documents)
    return [f"event {marker} in {collection}" for marker, count in counted.items() for _ in range(count - 1)]
