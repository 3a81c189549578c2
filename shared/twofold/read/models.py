"""The answers about events, the same for every reader: an event, a page, and the stand-in for an unreadable event."""

import base64
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, WithJsonSchema, create_model

from twofold.errors import Rejected, Unreadable
from twofold.event.data import NO_DATA, encode_data
from twofold.event.metadata import Metadata
from twofold.event.order import PublicationNumber
from twofold.mongo.client import Document, RawDocument
from twofold.mongo.documents import decode_document, fits_digest
from twofold.query.cursors import PageCursor

_LINE_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


def one_line_json(model: BaseModel) -> str:
    """Return the model as JSON in a line.

    JSON allows U+0085, U+2028 and U+2029 in strings, but Python's `splitlines` ends a line there. So they are escaped.
    """
    text = model.model_dump_json()
    return text if text.isascii() else text.translate(_LINE_ENDS)


def _is_none(value: object) -> bool:
    return value is None


def _is_absent(value: object) -> bool:
    return value is NO_DATA


def _readers_model() -> type[BaseModel]:
    """Return a model with the fields of `Metadata` in their order, but without the checks of a producer's values.

    A stored event may have been written by an older or newer version of Twofold, so the model takes unknown fields.
    """
    types = get_type_hints(Metadata)
    fields: dict[str, Any] = {}
    for name, field in Metadata.model_fields.items():
        if field.is_required():
            fields[name] = Annotated[types[name], Field(description=field.description)]
        else:
            absent = Field(default=None, exclude_if=_is_none, description=field.description)
            fields[name] = Annotated[types[name] | None, absent]
    document = "The origin of an event: the producer's service and its context. A missing value is absent, not null."
    return create_model("MetadataOut", __config__=ConfigDict(extra="allow"), __doc__=document, **fields)


if TYPE_CHECKING:
    MetadataOut = Metadata
else:
    MetadataOut = _readers_model()


ShownOrder = Annotated[
    PublicationNumber,
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,19}$"}),
    Field(
        description="the place among events of equal time, in the order of publication: a number of 63 bits, as digits "
        "in a string, because JavaScript's numbers would round it"
    ),
]
"""The order of an event in an answer."""


class EventOut(BaseModel):
    """An event as every reader shows it."""

    event_id: Annotated[UUID, Field(description="the identity in Twofold, made of the source and the `id`")]
    id: Annotated[str, Field(description="CloudEvents' `id`")]
    event_type: str
    event_version: str
    timestamp: datetime
    order: ShownOrder
    aggregate_id: str | None
    metadata: MetadataOut
    payload: Annotated[
        Any,
        Field(
            default_factory=lambda: NO_DATA,
            exclude_if=_is_absent,
            description="the data: a JSON value, or text by `data_content_type`; absent for bytes and without data",
        ),
    ]
    payload_base64: Annotated[
        str | None, Field(exclude_if=_is_none, description="the data in base64, if it is bytes; else absent")
    ] = None
    digest: Annotated[str, Field(description="the SHA-256 of the event's content, in hexadecimal digits")]
    stored_at: datetime
    altered: Annotated[
        Literal[True] | None,
        Field(
            exclude_if=_is_none,
            description="true: the event does not fit its digest or its identity, so it was changed in the database; "
            "else absent",
        ),
    ] = None

    @classmethod
    def of(cls, document: RawDocument) -> Self:
        """Return the event of a stored document that was read undecoded. Raise `Unreadable` if it holds no event."""
        return cls.of_decoded(decode_document(document))

    @classmethod
    def of_decoded(cls, document: Document) -> Self:
        """Return the event of a stored document from `decode_document`. Raise `Unreadable` if it holds no event."""
        fields = {name: document[name] for name in cls.model_fields if name in document}
        try:
            fields["id"] = str(document["id"])
            if isinstance(payload := document.get("payload"), bytes):
                fields["payload"], fields["payload_base64"] = NO_DATA, base64.b64encode(payload).decode()
            fields["digest"] = bytes(document["digest"]).hex()
            fields["altered"] = None if fits_digest(document) else True
            if fields["altered"]:
                encode_data(document.get("payload", NO_DATA), document["metadata"].get("data_content_type"))
            return cls.model_validate(fields | {"event_id": document["_id"]})
        except (KeyError, TypeError, AttributeError, Rejected, ValidationError):
            raise Unreadable(
                f"event {document['_id']} is unreadable: its document was changed in the database"
            ) from None  # the error holds the values of the document

    @property
    def cursor(self) -> PageCursor:
        """The event's place in the order of pages."""
        return PageCursor(self.timestamp, self.order)


class UnreadableEvent(BaseModel):
    """The stand-in for an event whose document was changed in the database so that it holds no event any more."""

    event_id: str
    unreadable: Literal[True]


class EventPage(BaseModel):
    """A page of the events that a filter selects."""

    events: list[EventOut]
    next: Annotated[str | None, Field(description="the cursor of the next page; null: this is the last page")] = None
    cut: Annotated[
        bool, Field(description="true: the search ran out of time before the page was full; `next` continues it")
    ] = False
    unreadable: Annotated[
        list[str], Field(description="ids of events on this page whose documents were made unreadable in the database")
    ] = []
    searched_to: Annotated[
        datetime | None, Field(description="the time of the last event that a cut search looked at")
    ] = None
