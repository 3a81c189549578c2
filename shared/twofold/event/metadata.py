"""The metadata of an event: the one table of its fields. Pure.

A new metadata field is one line in `Metadata`. Its CloudEvents attribute is the field's name without `_`. Readers,
exports, records and headers take their fields from this class.

A new field changes the digest of events that already have this attribute as an extension. Add a field only for an
attribute that no producer sends yet.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from twofold.errors import Invalid
from twofold.event.attribute import Attribute, UriReference, check_uri_reference, printable_name
from twofold.event.media_type import check_json_type, media_type

FIELD_OF_ATTRIBUTE = {"type": "event_type", "eventversion": "event_version", "subject": "aggregate_id"}
"""Attributes and their fields in `Event`, outside its metadata."""

HOP_ATTRIBUTES = frozenset(
    {
        *("knativekafkapartition", "knativekafkaoffset"),
        *("knativeerrordest", "knativeerrorcode", "knativeerrordata"),
        "redriveof",
    }
)
"""Attributes of one hop: a record's place in Kafka, a failed delivery, a redrive. They are no content of the event, so
Twofold neither stores them nor puts them into the digest."""

RESERVED_ATTRIBUTES = frozenset({"digest", "replayid", "timeassigned", "redriveof"})
"""Twofold's own attributes. A producer may not send them, except in a replay."""

_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,40}")


def check_extensions(extensions: dict[str, str]) -> dict[str, str]:
    """Return the extensions. Raises `Rejected` for an invalid name, `dataschema` or `datacontenttype`."""
    for name in extensions:
        if not _EXTENSION_NAME.fullmatch(name):
            raise Invalid("an attribute's name must be 1 to 40 lower-case letters and digits", printable_name(name))
        if name in NO_EXTENSIONS:
            raise Invalid("the name has another meaning: it cannot be an extension", name)
    if "dataschema" in extensions:
        try:
            check_uri_reference(extensions["dataschema"])
        except PydanticCustomError as error:
            raise Invalid(error.message(), "dataschema") from None
    check_json_type(media_type(extensions.get("datacontenttype", "")))
    return extensions


Extensions = Annotated[dict[str, Attribute], AfterValidator(check_extensions)]


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
    source_event_id: Annotated[
        Attribute | None, Field(description="the producer's `id`, unless it is a UUID of version 4 or 7")
    ] = None
    time_assigned: Annotated[
        bool, Field(description="true: `publish` assigned the time, and the digest leaves the time out")
    ] = False
    extensions: Annotated[Extensions, Field(description="the attributes without a field")] = Field(default_factory=dict)


METADATA_OF_ATTRIBUTE = {
    "source" if field == "service_name" else field.replace("_", ""): field
    for field in Metadata.model_fields
    if field not in ("source_event_id", "time_assigned", "extensions")
}
"""Attributes and their metadata fields."""

KNOWN_ATTRIBUTES = (
    HOP_ATTRIBUTES | FIELD_OF_ATTRIBUTE.keys() | METADATA_OF_ATTRIBUTE.keys() | {"specversion", "id", "time"}
)
"""Attributes with a field, and attributes of a hop. They are no extensions."""

NO_EXTENSIONS = KNOWN_ATTRIBUTES | RESERVED_ATTRIBUTES | {"data"}
"""The names that are forbidden for extensions."""
