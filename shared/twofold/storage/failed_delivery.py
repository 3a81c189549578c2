"""A failed delivery: its headers and body, unchanged, with the reason and an id. Pure.

`dead_letters.py` keeps failed deliveries as dead letters, and has the states of a dead letter.
"""

import base64
import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple
from uuid import UUID

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import MAX_DETAIL_CHARS, Rejected, Undelivered, UnknownReplay, cut_text
from twofold.event.digest import KAFKA_SOURCE_ATTRIBUTES

TRANSIENT_REASONS = (Undelivered.title, UnknownReplay.title)
"""Reasons outside of the event itself. The relay sends such an event again, and it can still reach the log."""

MAX_KEPT_BODY_BYTES = 15 * 1024 * 1024
"""The most bytes of a body in a dead letter. MongoDB takes 16 MiB a document, and the rest needs some room."""
MAX_KEPT_HEADERS = 500
"""The most headers in a dead letter: five times what Knative's gateway lets pass."""
MAX_KEPT_HEADER_BYTES = 256 * 1024
"""The most bytes of names and values of headers in a dead letter."""


class Kept(NamedTuple):
    """The part of a delivery that fits into a document of MongoDB."""

    headers: list[tuple[bytes, bytes]]
    body: bytes
    shortened: dict[str, Any] | None
    """For a delivery that does not fit: `headers`, `header_bytes`, `body_bytes` and `sha256` of the whole delivery."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failed delivery: its headers and body, unchanged, and the reason."""

    headers: RawHeaders
    body: bytes
    reason: Rejected
    partition: int | None
    offset: int | None
    delivered: DeliveredEvent | None = None
    """The event, if it could be decoded."""
    sink: str = "store"
    """The name of the function behind the delivery."""
    content: bytes | None = None
    """The identity of the delivery, for a source with a new id in every attempt."""

    @property
    def dead_letter_id(self) -> UUID:
        """The same id for every attempt of one delivery.

        An event is identified by its id and digest, an unreadable record by its place in Kafka and its bytes. The dead
        letter of a replayed event is another, because its rejection says nothing about the event.
        """
        if self.content is not None:
            return UUID(bytes=hashlib.sha256(self.sink.encode() + self.content).digest()[:16], version=5)
        content = hashlib.sha256()
        if self.delivered:
            content.update(self.delivered.event_id.bytes + self.delivered.digest)
            if self.delivered.replay_id is not None:
                content.update(b"replayed")
        else:
            content.update(f"{self.partition}/{self.offset}".encode())
            for name, value in sorted(self.kept_headers):
                content.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
            content.update(self.body)
        return UUID(bytes=content.digest()[:16], version=5)

    @property
    def kept_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the event. The headers of the connection and of the source differ in every attempt."""
        return _event_headers(self.headers)

    def kept(self) -> Kept:
        """Return the delivery as it is kept: whole, or without its last headers and the end of a very large body."""
        headers = self.kept_headers
        sizes = list(accumulate(len(name) + len(value) for name, value in headers))
        number = min(bisect_right(sizes, MAX_KEPT_HEADER_BYTES), MAX_KEPT_HEADERS)
        if number == len(headers) and len(self.body) <= MAX_KEPT_BODY_BYTES:
            return Kept(headers, self.body, None)
        whole = hashlib.sha256()
        for name, value in headers:
            whole.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
        whole.update(self.body)
        shortened = {
            "headers": len(headers),
            "header_bytes": sizes[-1] if sizes else 0,
            "body_bytes": len(self.body),
            "sha256": whole.digest(),
        }
        return Kept(headers[:number], self.body[:MAX_KEPT_BODY_BYTES], shortened)


def undelivered_reason(headers: RawHeaders) -> Undelivered:
    """Return the reason from the extensions of a KafkaSource in a request to its dead-letter sink."""
    values = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    try:
        answer = base64.b64decode(values.get("ce-knativeerrordata", "")).decode("utf-8", "replace")
    except ValueError:
        answer = values["ce-knativeerrordata"]
    sink = values.get("ce-knativeerrordest", "the sink")
    code = values.get("ce-knativeerrorcode")
    outcome = "gave no answer" if code is None else f"answered {code}"
    return Undelivered(cut_text(f"{sink} {outcome}: {answer}" if answer else f"{sink} {outcome}", MAX_DETAIL_CHARS))


def is_same_delivery(
    kept: Mapping[str, Any], headers: RawHeaders, body: bytes, delivered: DeliveredEvent | None
) -> bool:
    """Return True if the document `kept` and the delivery have the same event, or the same bytes."""
    if delivered is not None and kept["event_id"] is not None:
        return (kept["event_id"], kept["digest"]) == (delivered.event_id, delivered.digest)
    kept_headers = [(header["name"].encode("latin-1"), header["value"]) for header in kept["headers"]]
    return kept["body"] == body and _without_hop(kept_headers) == _without_hop(_event_headers(headers))


def _event_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    return [
        (name, value)
        for name, value in headers
        if name == b"content-type" or (name.startswith(b"ce-") and not name.startswith(b"ce-knativeerror"))
    ]


def _without_hop(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    hop = KAFKA_SOURCE_ATTRIBUTES | {"redriveof"}
    return sorted((name, value) for name, value in headers if name.decode("latin-1").removeprefix("ce-") not in hop)
