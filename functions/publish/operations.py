"""The operation of `publish`, for OpenAPI and docs/api.md: CloudEvents 1.0 in the HTTP binding."""

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
    """An event in structured mode. Further attributes are extensions: strings that are stored unchanged."""

    model_config = ConfigDict(extra="allow")

    specversion: Literal["1.0"]
    id: Annotated[Attribute, Field(description="the same in every attempt to send the event")]
    type: Attribute
    source: Annotated[Attribute, Field(description="a URI reference")]
    time: Annotated[str | None, Field(description="RFC 3339; the default is the time of arrival")] = None
    subject: Annotated[Attribute | None, Field(description="the id of the aggregate")] = None
    data: Annotated[dict[str, Any], Field(default_factory=dict, description="the payload: a JSON object")]
    correlationid: Attribute | None = None
    causationid: Attribute | None = None
    userid: Annotated[Attribute | None, Field(description="the caller, or any user with `events:publish:any`")] = None


class Batch(RootModel[list[CloudEvent]]):
    """Events with separate results."""


class Data(RootModel[dict[str, Any]]):
    """The payload in binary mode. The attributes are headers: `ce-id`, `ce-type` and so on."""


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
        summary="Publish an event or a batch.",
        details=(
            "The answer comes when a majority of MongoDB's members has the accepted events. Sending the same request "
            "again is always safe. In binary mode (any JSON content type) the attributes are headers with the prefix "
            "`ce-`. Without the permission `events:publish:any`, `userid` can only be the caller. 422 "
            "`identity-conflict` means that another event has the same id. The answer to a batch has a result for each "
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
