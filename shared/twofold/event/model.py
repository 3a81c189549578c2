"""`Event`: the one schema of `events` and `event_store`. Pure: no I/O, no clock.

The same checks hold for an event from HTTP, Kafka, MongoDB or application code.
"""

import copy
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from twofold.errors import Invalid, Problem
from twofold.event.attribute import Attribute, Required
from twofold.event.data import NO_DATA, EncodedData, encode_data
from twofold.event.digest import compute_digest
from twofold.event.document import document_of
from twofold.event.identity import event_id_of
from twofold.event.metadata import FIELD_OF_ATTRIBUTE, METADATA_OF_ATTRIBUTE, Metadata
from twofold.event.order import ORDER_ATTRIBUTE, PublicationNumber
from twofold.event.time import Timestamp, format_time, is_inexact, parse_time, to_utc_milliseconds


class Event(BaseModel):
    """An event, as both collections keep it. Make it with `Event.of`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Required
    event_type: Required
    event_version: Attribute = "1.0"
    timestamp: Timestamp
    aggregate_id: Required | None = None
    metadata: Metadata
    payload: Any = NO_DATA
    order: PublicationNumber | None = None
    """The order of publication. None: no publisher has accepted the event yet. The digest leaves it out."""

    @classmethod
    def of(cls, **fields: object) -> Self:
        """Return the event with these fields. Raises `Invalid` with every wrong field, or another `Rejected`."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _invalid(error) from None

    @model_validator(mode="after")
    def _is_valid(self) -> Self:
        original = self.metadata.original_time
        if original is not None and not (is_inexact(original) and _in_milliseconds(original) == self.timestamp):
            raise Invalid("must be the time in the original text", "time")
        self.data  # noqa: B018 - it checks the payload
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a checked copy with other fields. Raises `Rejected` as `Event.of` does.

        pydantic's own method would copy the cached digest too.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return self.of(**(copy.deepcopy(fields) if deep else fields) | dict(update or {}))

    @cached_property
    def event_id(self) -> UUID:
        """The identity. See `event_id_of`."""
        return event_id_of(self.metadata.service_name, self.id)

    @cached_property
    def time(self) -> str:
        """The timestamp in RFC 3339, with milliseconds."""
        return format_time(self.timestamp)

    @cached_property
    def metadata_fields(self) -> dict[str, Any]:
        """The metadata with values. An absent field is not stored as null."""
        return {name: value for name, value in vars(self.metadata).items() if value or value == ""}

    @cached_property
    def data(self) -> EncodedData:
        """The data in the form of digests and of Kafka."""
        return encode_data(self.payload, self.metadata.data_content_type)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the content and the data, 32 bytes. See `compute_digest`."""
        return compute_digest(self.id, self._content, self.data, self.time)

    @property
    def _content(self) -> dict[str, Any]:
        return {
            "event_type": self.event_type,
            "event_version": self.event_version,
            "aggregate_id": self.aggregate_id,
            "metadata": self.metadata_fields,
        }

    def to_document(self) -> dict[str, Any]:
        """Return the document for `encode_event`, without the fields that the server and the collections add."""
        document = document_of(self.id, self._content, self.timestamp, self.payload, self.digest)
        if self.order is not None:
            document["order"] = self.order
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the event in a stored document. Raises `Rejected` if the document is not a valid event."""
        fields = {name: document[name] for name in cls.model_fields if name in document}
        if isinstance(fields.get("id"), UUID):
            fields["id"] = str(fields["id"])
        event = cls.of(**fields)
        if event.event_id != document.get("_id"):
            raise Invalid("must be made of the source and the id", "id")
        return event


def _in_milliseconds(text: str) -> datetime | None:
    try:
        return to_utc_milliseconds(parse_time(text))
    except (ValueError, PydanticCustomError):
        return None


def _invalid(error: ValidationError) -> Invalid:
    """Return pydantic's error with the names of CloudEvents attributes."""
    problems = tuple(
        Problem(_attribute_name(wrong["loc"]), wrong["msg"])
        for wrong in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return Invalid("; ".join(f"{where}: {what}" for where, what in problems), problems=problems)


_ATTRIBUTE_OF_FIELD = {
    **{field: attribute for attribute, field in (METADATA_OF_ATTRIBUTE | FIELD_OF_ATTRIBUTE).items()},
    "original_time": "time",
    "timestamp": "time",
    "payload": "data",
    "order": ORDER_ATTRIBUTE,
}


def _attribute_name(location: tuple[int | str, ...]) -> str:
    parts = (str(part) for part in location if part not in ("metadata", "extensions", "[key]"))
    return ".".join(_ATTRIBUTE_OF_FIELD.get(part, part.replace("_", "")) for part in parts)
