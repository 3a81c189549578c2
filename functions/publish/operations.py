"""What `publish` takes and answers, for OpenAPI and docs/api.md: CloudEvents 1.0 by the HTTP binding."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, RootModel

from twofold.errors import Invalid
from twofold.event.attribute import MAX_ATTRIBUTE_CHARS
from twofold.web.api import Example, OperationDescription
from twofold.web.openapi import ProblemDetails
from twofold.web.permissions import Permission

Attribute = Annotated[str, Field(min_length=1, max_length=MAX_ATTRIBUTE_CHARS)]


class CloudEvent(BaseModel):
    """An event in structured mode; other attributes are its extensions: strings, and kept as they are."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"]
    id: Annotated[Attribute, Field(description="the same for each attempt to send it")]
    type: Attribute
    source: Annotated[Attribute, Field(description="a URI reference")]
    time: Annotated[str | None, Field(description="RFC 3339; without it, that of its arrival")] = None
    subject: Annotated[Attribute | None, Field(description="the aggregate")] = None
    data: Annotated[dict[str, Any], Field(default_factory=dict, description="the payload: a JSON object")]
    correlationid: Attribute | None = None
    causationid: Attribute | None = None
    userid: Annotated[Attribute | None, Field(description="one's own, without the right `events:publish:any`")] = None


class Batch(RootModel[list[CloudEvent]]):
    """Several events, each with its own result."""


class Data(RootModel[dict[str, Any]]):
    """The payload in binary mode, where the attributes are headers: `ce-id`, `ce-type` and so on."""


class Taken(BaseModel):
    """An event that is durable in `events`, and will be in `event_store`."""

    id: Annotated[str, Field(description="as it was given")]
    event_id: Annotated[UUID, Field(description="its identity in Twofold")]
    result: Literal["accepted", "duplicate"]


class TakenOfBatch(Taken):
    """One that was taken, in its place in a batch."""

    status: Literal[202]


class Results(BaseModel):
    """What became of each event, in its place; with 202, all were taken."""

    results: list[TakenOfBatch | ProblemDetails]


class AllTaken(RootModel[Taken | Results]):
    """Of one event, or of a batch."""


_BINARY = (
    "-H 'ce-specversion: 1.0' -H \"ce-id: $EVENT_ID\" -H 'ce-type: order.created' -H 'ce-source: /shop' "
    "-H 'ce-subject: order-7' -H 'content-type: application/json' -d '{\"total\": 3, \"express\": true}'"
)
_STRUCTURED = (
    "-H 'content-type: application/cloudevents+json' "
    '-d \'{"specversion": "1.0", "id": "order-7-paid", "type": "order.paid", "source": "/shop", "data": {"total": 3}}\''
)
_BATCH = (
    "-H 'content-type: application/cloudevents-batch+json' "
    '-d \'[{"specversion": "1.0", "id": "order-7-sent", "type": "order.sent", "source": "/shop", "data": {}}]\''
)

OPERATIONS = (
    OperationDescription(
        name="publish",
        method="POST",
        path="/",
        summary="Publish one event, or a batch.",
        details=(
            "The answer comes when a majority of MongoDB's members has what was taken. Sending the same again is "
            "always safe. In binary mode (any content type of JSON) the attributes are headers, `ce-` before each "
            "name. Without the right `events:publish:any`, `userid` can only be one's own. 422 `identity-conflict` "
            "says that the id belongs to another event already."
        ),
        permission=Permission.PUBLISH,
        headers={
            "ce-specversion": "binary mode: `1.0`",
            "ce-id": "binary mode: the id",
            "ce-type": "binary mode: the type",
            "ce-source": "binary mode: the source, a URI reference",
            "Prefer": "`reply`: 202 has no body, as a Broker needs it",
        },
        bodies={
            "application/cloudevents+json": CloudEvent,
            "application/cloudevents-batch+json": Batch,
            "application/json": Data,
        },
        status=202,
        answer=AllTaken,
        answers={207: Results},
        refusals=(Invalid,),
        examples=(
            Example("/", _BINARY, "binary mode"),
            Example("/", _STRUCTURED, "structured mode"),
            Example("/", _BATCH, "a batch"),
        ),
    ),
)
