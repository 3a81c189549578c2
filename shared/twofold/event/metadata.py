"""The metadata of an event: the one table of its fields. Pure.

A new metadata field is one line in `Metadata`. Its CloudEvents attribute is the field's name without `_`. Readers,
exports, records and headers take their fields from this class.

A new field changes the digest of events that already have this attribute as an extension. Add a field only for an
attribute that no producer sends yet.
"""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from twofold.errors import Invalid
from twofold.event.attribute import Attribute, UriReference, check_text, check_uri_reference, printable_name
from twofold.event.media_type import JSON, parse_content_type
from twofold.event.order import ORDER_ATTRIBUTE

FIELD_OF_ATTRIBUTE = {"type": "event_type", "eventversion": "event_version", "subject": "aggregate_id"}
"""Attributes and their fields in `Event`, outside its metadata."""

DIGEST_ATTRIBUTE = "twofolddigest"
EXACT_ATTRIBUTE = "twofoldexact"
TIME_ASSIGNED_ATTRIBUTE = "twofoldtimeassigned"

RESERVED_ATTRIBUTES = frozenset(
    {DIGEST_ATTRIBUTE, EXACT_ATTRIBUTE, TIME_ASSIGNED_ATTRIBUTE, ORDER_ATTRIBUTE, "redriveof", "replayid"}
)
"""Twofold's own attributes. A producer may not send them, except in a replay."""

_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,40}")


def check_extension_names(extensions: Iterable[str]) -> None:
    """Raise `Invalid` for an invalid name of an extension."""
    for name in extensions:
        if not _EXTENSION_NAME.fullmatch(name):
            raise Invalid("an attribute's name must be 1 to 40 lower-case letters and digits", printable_name(name))
        if name in NO_EXTENSIONS:
            raise Invalid("the name has another meaning: it cannot be an extension", name)


def _check_extensions(extensions: dict[str, str]) -> dict[str, str]:
    check_extension_names(extensions)
    if "dataschema" in extensions:
        if not extensions["dataschema"]:
            raise Invalid("must not be empty", "dataschema")
        try:
            check_uri_reference(extensions["dataschema"])
        except PydanticCustomError as error:
            raise Invalid(error.message(), "dataschema") from None
    return extensions


def _check_content_type(content_type: str) -> str | None:
    """Return the content type, or None for JSON's: an absent type is equal (CloudEvents 1.0.2, `datacontenttype`)."""
    parse_content_type(check_text(content_type))
    return None if content_type == JSON else content_type


Extensions = Annotated[dict[str, Attribute], AfterValidator(_check_extensions)]


class Metadata(BaseModel):
    """The origin of an event: CloudEvents' `source` and extension attributes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service_name: Annotated[UriReference, Field(description="CloudEvents' `source`")]
    service_version: Attribute | None = None
    correlation_id: Attribute | None = None
    causation_id: Attribute | None = None
    user_id: Attribute | None = None
    environment: Attribute | None = None
    ip_address: Attribute | None = None
    user_agent: Attribute | None = None
    traceparent: Attribute | None = None
    data_content_type: Annotated[
        Annotated[str, Field(strict=True, min_length=1), AfterValidator(_check_content_type)] | None,
        Field(description="CloudEvents' `datacontenttype`; absent: JSON, or bytes of no known type"),
    ] = None
    original_time: Annotated[
        Attribute | None, Field(description="the producer's `time`, if it is finer than a millisecond or a leap second")
    ] = None
    time_assigned: Annotated[
        bool, Field(description="true: `publish` assigned the time, and the digest leaves the time out")
    ] = False
    extensions: Annotated[Extensions, Field(description="the attributes without a field")] = Field(default_factory=dict)


METADATA_OF_ATTRIBUTE = {
    "source" if field == "service_name" else field.replace("_", ""): field
    for field in Metadata.model_fields
    if field not in ("original_time", "time_assigned", "extensions")
}
"""Attributes and their metadata fields."""

KNOWN_ATTRIBUTES = FIELD_OF_ATTRIBUTE.keys() | METADATA_OF_ATTRIBUTE.keys() | {"specversion", "id", "time"}
"""Attributes with a field. They are no extensions."""

NO_EXTENSIONS = KNOWN_ATTRIBUTES | RESERVED_ATTRIBUTES | {"data"}
"""The names that are forbidden for extensions."""
