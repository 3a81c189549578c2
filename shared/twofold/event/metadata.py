"""TODO module."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from twofold.errors import Invalid
from twofold.event.attribute import Attribute, UriReference, check_uri_reference, printable_name
from twofold.event.media_type import check_json_type, media_type
from twofold.event.model import Event

_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,40}")


def check_extensions(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _EXTENSION_NAME.fullmatch(name):
            raise Invalid("an attribute's name must be 1 to 40 lower-case letters and digits", printable_name(name))
        if name in _NO_EXTENSIONS:
            raise Invalid("is the name of something else: it can't be an extension", name)
    if "dataschema" in value:
        try:
            check_uri_reference(value["dataschema"])
        except PydanticCustomError as error:
            raise Invalid(error.message(), "dataschema") from None
    check_json_type(media_type(value.get("datacontenttype", "")))
    return value


Extensions = Annotated[dict[str, Attribute], AfterValidator(check_extensions)]


class Metadata(BaseModel):
    """Who and what an event came from: CloudEvents' `source` and extensions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service_name: UriReference
    service_version: Attribute | None = None
    correlation_id: Attribute | None = None
    causation_id: Attribute | None = None
    user_id: Attribute | None = None
    environment: Attribute | None = None
    ip_address: Attribute | None = None
    user_agent: Attribute | None = None
    traceparent: Attribute | None = None
    source_event_id: Attribute | None = None
    """The `id` as it was given, if the event's identity had to be derived from it."""
    time_assigned: bool = False
    """The producer gave no `time`, so `publish` did; the digest then leaves the timestamp out."""
    extensions: Extensions = Field(default_factory=dict)


_ATTRIBUTE_OF_FIELD = {
    "event_id": "id",
    "event_type": "type",
    "event_version": "eventversion",
    "timestamp": "time",
    "aggregate_id": "subject",
    "service_name": "source",
    "source_event_id": "id",
    "payload": "data",
    "metadata": "",
    "extensions": "",
}


HOP_ATTRIBUTES = frozenset(
    {
        *("knativekafkapartition", "knativekafkaoffset"),
        *("knativeerrordest", "knativeerrorcode", "knativeerrordata"),
        "redriveof",
    }
)
"""About one hop: where a record lay, why it was not delivered, and whose redrive it is. No content, so neither stored
nor part of the digest."""


_NO_EXTENSIONS = (
    HOP_ATTRIBUTES
    | {"specversion", "digest", "replayid"}
    | {_ATTRIBUTE_OF_FIELD.get(field, field.replace("_", "")) for field in Event.model_fields | Metadata.model_fields}
)
"""Attributes with a field of their own, Twofold's, and `data`: as extensions they would replace those on the way."""


METADATA_OF_ATTRIBUTE = {
    "source": "service_name",
    "serviceversion": "service_version",
    "correlationid": "correlation_id",
    "causationid": "causation_id",
    "userid": "user_id",
    "environment": "environment",
    "ipaddress": "ip_address",
    "useragent": "user_agent",
    "traceparent": "traceparent",
}


FIELD_OF_ATTRIBUTE = {"type": "event_type", "eventversion": "event_version", "subject": "aggregate_id"}
