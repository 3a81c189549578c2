"""`publish`: takes CloudEvents over HTTP into `events`, answers, and sends them to Kafka behind the answer."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.errors import Rejected, TwofoldError
from twofold.observability.context import EVENT_ID
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.query.parameters import parse_query
from twofold.settings import AuthSettings, LogSettings, PublishSettings, SenderSettings
from twofold.web.api import NoParameters
from twofold.web.auth import authenticator
from twofold.web.bodies import JsonResponse, read_body, require_method
from twofold.web.function import serve
from twofold.web.openapi import describe
from twofold.web.permissions import Permission, Principal
from twofold.web.problems import problem_details
from twofold.write.publisher import Published, Publisher, open_publisher

from .operations import OPERATIONS


class Settings(SenderSettings, PublishSettings, AuthSettings, LogSettings):
    """The settings of `publish`."""


settings = Settings()
write_logs(settings, "publish")
callers = authenticator(settings)


@cache
def description() -> Response:
    """What `/openapi.json` answers."""
    return JsonResponse(describe("publish", OPERATIONS))


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Publisher]:
    """Open the connections of one worker process."""
    async with open_publisher(settings, "publish", telemetry) as publisher:
        yield publisher


async def handle(publisher: Publisher, request: Request) -> Response:
    """Publish the event, or the batch, that `request` holds. Raises `TwofoldError`."""
    if request.method == "GET" and request.scope["path"] == "/openapi.json":
        return description()
    require_method(request, "POST")
    caller = await callers.principal(request.headers.raw)
    caller.require(Permission.PUBLISH)
    try:
        if request.scope["query_string"]:
            parse_query(request.scope["query_string"], NoParameters)
        body = await read_body(request, settings.max_body_bytes)
        await publisher.yield_to_pending_write()
        received = decode_http(request.scope["headers"], body, publisher.clock(), settings.max_batch_events)
    except Rejected as unreadable:
        raise publisher.count_rejection(unreadable) from None
    if not isinstance(received, IncomingEvent):
        return _batch_answer(request, await publisher.publish(_permitted(caller, each) for each in received))
    EVENT_ID.set(received.encoded.given_id)
    if refusal := caller.refusal(received.encoded.attributes):
        raise publisher.count_rejection(refusal)
    (outcome,) = await publisher.publish([received])
    if isinstance(outcome, TwofoldError):
        raise outcome
    return _all_taken(request, _taken(outcome))


def _all_taken(request: Request, what: object) -> Response:
    """202 with `what`; or without a body, for a Broker (`Prefer: reply`): it would take this one for an event."""
    for line in request.headers.getlist("prefer"):
        if any(preference.partition(";")[0].strip().lower() == "reply" for preference in line.split(",")):
            return Response(status_code=202)
    return JsonResponse(what, status_code=202)


def _batch_answer(request: Request, outcomes: Sequence[Published | TwofoldError]) -> Response:
    """202 if all were taken, else 207; each event's own status stands in its place."""
    results = [
        problem_details(outcome) if isinstance(outcome, TwofoldError) else {"status": 202} | _taken(outcome)
        for outcome in outcomes
    ]
    if any(isinstance(outcome, TwofoldError) for outcome in outcomes):
        return JsonResponse({"results": results}, status_code=207)
    return _all_taken(request, {"results": results})


def _permitted(caller: Principal, received: IncomingEvent | Rejected) -> IncomingEvent | Rejected:
    """The same, or why the caller may not publish it."""
    return (
        (caller.refusal(received.encoded.attributes) or received) if isinstance(received, IncomingEvent) else received
    )


def _taken(published: Published) -> dict[str, str | UUID]:
    return {"id": published.given_id, "event_id": published.event_id, "result": published.status}


publish = serve("publish", open_service, handle, finish=Publisher.flush, topic=settings.kafka_topic)
