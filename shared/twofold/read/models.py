"""TODO module."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twofold.errors import Unreadable
from twofold.mongo.client import Document, RawDocument
from twofold.mongo.documents import decode_document
from twofold.query.cursors import PageCursor


def _is_none(value: object) -> bool:
    return value is None


_Present = TypeVar("_Present")


Optional = Annotated[_Present | None, Field(exclude_if=_is_none)]
"""Absent, rather than null, where it isn't given."""


class MetadataOut(BaseModel):
    """Who and what an event came from. What the producer did not give is absent."""

    model_config = ConfigDict(extra="allow")

    service_name: Annotated[str, Field(description="CloudEvents' source")]
    service_version: Optional[str] = None
    correlation_id: Optional[str] = None
    causation_id: Optional[str] = None
    user_id: Optional[str] = None
    environment: Optional[str] = None
    ip_address: Optional[str] = None
    user_agent: Optional[str] = None
    traceparent: Optional[str] = None
    source_event_id: Annotated[Optional[str], Field(description="the id as it was given, if it is no UUID")] = None
    time_assigned: Annotated[Optional[bool], Field(description="the producer gave no time, so publish did")] = None
    extensions: Optional[dict[str, str]] = None


class EventOut(BaseModel):
    """An event as every reader shows it."""

    event_id: UUID
    event_type: str
    event_version: str
    timestamp: datetime
    aggregate_id: str | None
    metadata: MetadataOut
    payload: dict[str, Any]
    digest: Annotated[str, Field(description="SHA-256 of what the producer said, in hexadecimal digits")]
    stored_at: datetime

    @classmethod
    def of(cls, document: RawDocument) -> Self:
        """The event of a stored document that was read undecoded. Raises `Unreadable`."""
        return cls.of_plain(decode_document(document))

    @classmethod
    def of_plain(cls, document: Document) -> Self:
        """The same, of a document that `mongo.plain` decoded."""
        fields = {name: document.get(name) for name in cls.model_fields if name != "event_id"}
        try:
            fields["digest"] = bytes(document["digest"]).hex()
            return cls.model_validate(fields | {"event_id": document["_id"]})
        except (KeyError, TypeError, ValidationError) as error:
            raise Unreadable(f"event {document['_id']} was made unreadable in the database") from error

    @property
    def position(self) -> PageCursor:
        """Its place in the order of pages."""
        return PageCursor(self.timestamp, self.event_id)


class UnreadableEvent(BaseModel):
    """What stands in the place of an event that somebody made unreadable in the database."""

    event_id: str
    unreadable: Literal[True]


class EventPage(BaseModel):
    """Some of the events that a filter selects."""

    events: list[EventOut]
    next: Annotated[str | None, Field(description="the cursor of the next page; null: there is none")] = None
    cut: Annotated[
        bool, Field(description="the search ran out of time before the page was full: `next` goes on from there")
    ] = False
    unreadable: Annotated[
        list[str], Field(description="ids of events in this page that somebody made unreadable in the database")
    ] = []
    searched_to: Annotated[
        datetime | None, Field(description="the time of the last event that a cut search looked at")
    ] = None
