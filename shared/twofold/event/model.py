"""`Event`: the one schema of `events` and `event_store`. Pure: no I/O, no clock.

The same checks hold for an event from HTTP, Kafka, MongoDB or application code.
"""

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from twofold.errors import Invalid, Problem
from twofold.event.attribute import Attribute, Word
from twofold.event.canonical import canonical_json
from twofold.event.digest import compute_digest
from twofold.event.identity import canonical_id, derived_id, is_random_or_timed
from twofold.event.metadata import FIELD_OF_ATTRIBUTE, METADATA_OF_ATTRIBUTE, Metadata
from twofold.event.payload import check_payload
from twofold.event.time import Timestamp, format_time


class Event(BaseModel):
    """An event, as both collections keep it. Make it with `Event.of`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: UUID
    event_type: Word
    event_version: Attribute = "1.0"
    timestamp: Timestamp
    aggregate_id: Attribute | None = None
    metadata: Metadata
    payload: dict[str, Any]

    @classmethod
    def of(cls, **fields: object) -> Self:
        """Return the event with these fields. Raises `Invalid` with every wrong field, or another `Rejected`."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _invalid(error) from None

    @model_validator(mode="after")
    def _is_valid(self) -> Self:
        check_payload(self.payload)
        given = self.metadata.source_event_id
        if given is None:
            if not is_random_or_timed(self.event_id):
                raise Invalid("must be a UUID of version 4 or 7, or have a source_event_id", "id")
        elif canonical_id(given) or derived_id(self.metadata.service_name, given) != self.event_id:
            raise Invalid("must be derived from the source and the source_event_id", "id")
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a checked copy with other fields. Raises `Rejected` as `Event.of` does.

        pydantic's own method would copy the cached digest too.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return self.of(**(copy.deepcopy(fields) if deep else fields) | dict(update or {}))

    @property
    def given_id(self) -> str:
        """CloudEvents' `id`: the producer's name for the event."""
        return self.metadata.source_event_id or self.id_text

    @cached_property
    def id_text(self) -> str:
        """The identity as text. It is cached, because the conversion is slow."""
        return str(self.event_id)

    @cached_property
    def time(self) -> str:
        """The timestamp in RFC 3339, with milliseconds."""
        return format_time(self.timestamp)

    @cached_property
    def metadata_fields(self) -> dict[str, Any]:
        """The metadata with values. An absent field is not stored as null."""
        return {name: value for name, value in vars(self.metadata).items() if value}

    @cached_property
    def payload_json(self) -> bytes:
        """The payload as canonical JSON. See `canonical.py`."""
        return canonical_json(self.payload)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the content, 32 bytes. See `compute_digest`."""
        return compute_digest(self.id_text, self._content, self.payload_json, self.time)

    @property
    def _content(self) -> dict[str, Any]:
        return {
            "event_type": self.event_type,
            "event_version": self.event_version,
            "aggregate_id": self.aggregate_id,
            "metadata": self.metadata_fields,
        }

    def to_document(self) -> dict[str, Any]:
        """Return the MongoDB document, without the fields that the server and the collections add."""
        return {
            "_id": self.event_id,
            **self._content,
            "timestamp": self.timestamp,
            "payload": self.payload,
            "digest": self.digest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the event in a stored document. Raises `Rejected` if the document is not a valid event."""
        fields = {name: document[name] for name in cls.model_fields if name in document}
        return cls.of(event_id=document.get("_id"), **fields)


def _invalid(error: ValidationError) -> Invalid:
    """Return pydantic's error with the names of CloudEvents attributes."""
    problems = tuple(
        Problem(_attribute_name(wrong["loc"]), wrong["msg"])
        for wrong in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return Invalid("; ".join(f"{where}: {what}" for where, what in problems), problems=problems)


_ATTRIBUTE_OF_FIELD = {
    **{field: attribute for attribute, field in (METADATA_OF_ATTRIBUTE | FIELD_OF_ATTRIBUTE).items()},
    "event_id": "id",
    "source_event_id": "id",
    "timestamp": "time",
    "payload": "data",
}


def _attribute_name(location: tuple[int | str, ...]) -> str:
    parts = (str(part) for part in location if part not in ("metadata", "extensions", "[key]"))
    return ".".join(_ATTRIBUTE_OF_FIELD.get(part, part.replace("_", "")) for part in parts)
