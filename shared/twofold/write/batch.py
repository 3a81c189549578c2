"""The events of one call of the publisher, on their way to their outcomes."""

from typing import Literal, NamedTuple
from uuid import UUID

from twofold.cloudevents.encode import KafkaRecord
from twofold.errors import TwofoldError
from twofold.mongo.client import RawDocument


class Published(NamedTuple):
    """An accepted event: durable in `events`, and on its way to `event_store`."""

    event_id: UUID
    given_id: str
    status: Literal["accepted", "duplicate"]


class ReplayedEvent(NamedTuple):
    """A replayed event, to compare with the stored event. It has no payload."""

    event_id: UUID
    given_id: str
    digest: bytes


class PreparedEvent(NamedTuple):
    """An event in encoded form, waiting for the group commit.

    It keeps bytes and not the `Event`: thousands may wait, and the objects of their payloads would use too much memory.
    """

    event_id: UUID
    given_id: str
    digest: bytes
    document: RawDocument
    record: KafkaRecord
    size: int
    """The bytes of document and record."""


class Batch(NamedTuple):
    """The events of a call. A place in `outcomes` is None as long as the event has no outcome."""

    outcomes: list[Published | TwofoldError | None]
    prepared: dict[int, PreparedEvent]
    replayed: dict[int, ReplayedEvent]
