"""The operation of `publish`, for OpenAPI and docs/api.md: CloudEvents 1.0 in the HTTP binding."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, RootModel

from twofold.errors import Invalid
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES
from twofold.web.api import Example, OperationDescription
from twofold.web.openapi import ProblemDetails
from twofold.web.permissions import Permission

Text = Annotated[str, Field(max_length=MAX_ATTRIBUTE_BYTES)]
Attribute = Annotated[Text, Field(min_length=1)]


class CloudEvent(BaseModel):
    """An event in structured mode. Further attributes are extensions: a boolean and an integer are stored as text."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"]
    id: Annotated[Attribute, Field(description="unique within the source, and the same in every attempt")]
    type: Attribute
    source: Annotated[Attribute, Field(description="a URI reference")]
    time: Annotated[str | None, Field(description="RFC 3339; the default is the time of arrival")] = None
    subject: Annotated[Attribute | None, Field(description="the id of the aggregate")] = None
    datacontenttype: Annotated[
        Attribute | None, Field(description="the content type; absent: JSON in `data`, bytes in `data_base64`")
    ] = None
    data: Annotated[
        Any,
        Field(
            default_factory=lambda: None,  # a default in the description would be null, and null is a JSON value
            description="a JSON value; a string if the content type is not JSON; absent: the event has no data",
        ),
    ]
    data_base64: Annotated[str | None, Field(description="in place of `data`: the bytes of the data in base64")] = None
    correlationid: Text | None = None
    causationid: Text | None = None
    userid: Annotated[Text | None, Field(description="the caller, or any user with `events:publish:any`")] = None


class Batch(RootModel[list[CloudEvent]]):
    """Events with separate results."""


class Data(RootModel[Any]):
    """JSON data in binary mode. The attributes are headers: `ce-id`, `ce-type` and so on."""


class Accepted(BaseModel):
    """An accepted event: durable in `events`, and on its way to `event_store`."""

    id: Annotated[str, Field(description="the `id` in the request")]
    event_id: Annotated[UUID, Field(description="its identity in Twofold")]
    result: Literal["accepted", "duplicate"]


class AcceptedInBatch(Accepted):
    """An accepted event of a batch."""

    status: Literal[202]


class RefusedInBatch(ProblemDetails):
    """A refused event of a batch, with the reason."""

    model_config = ConfigDict(title="RefusedInBatch")

    id: Annotated[str | None, Field(description="the `id` in the request; absent if the event has no `id`")] = None


class Results(BaseModel):
    """The results in the order of the batch. With 202, the whole batch was accepted."""

    results: list[AcceptedInBatch | RefusedInBatch]


class AllAccepted(RootModel[Accepted | Results]):
    """The answer for an event or for a batch."""


_BINARY = (
    "-H 'ce-specversion: 1.0' -H \"ce-id: $GIVEN_ID\" -H 'ce-type: order.created' -H 'ce-source: /shop' "
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
        summary="Publish an event or a batch.",
        details=(
            "The answer comes when a majority of MongoDB's members has the accepted events. Sending the same request "
            "again is always safe. In binary mode the body is the data, of any content type, and the attributes are "
            "headers with the prefix `ce-`. docs/cloudevents.md says which events are taken. Without the permission "
            "`events:publish:any`, `userid` can only be the caller. 422 `identity-conflict` means that an event with "
            "the same `source` and `id` has other content. The answer to a batch has a result for each "
            "event: 202 if every event was accepted (also for an empty batch), 207 if a part was accepted, 422 if no "
            "event was accepted and every refusal is final, 503 if no event was accepted and at least one event is to "
            "be sent again. "
            "A body may have `Content-Encoding: gzip`; another coding is 415. "
            "`OPTIONS` answers the handshake of CloudEvents webhooks (docs/deploy.md), without a token."
        ),
        permission=Permission.PUBLISH,
        headers={
            "ce-specversion": "binary mode: `1.0`",
            "ce-id": "binary mode: the id",
            "ce-type": "binary mode: the type",
            "ce-source": "binary mode: the source, a URI reference",
            "Prefer": "`reply`: 202 has no body, as a Broker requires it",
        },
        bodies={
            "application/cloudevents+json": CloudEvent,
            "application/cloudevents-batch+json": Batch,
            "application/json": Data,
        },
        status=202,
        answer=AllAccepted,
        answers={207: Results, 422: Results, 503: Results},
        refusals=(Invalid,),
        examples=(
            Example("/", _BINARY, "binary mode"),
            Example("/", _STRUCTURED, "structured mode"),
            Example("/", _BATCH, "a batch"),
        ),
    ),
)
