"""`publish`: accept CloudEvents over HTTP, insert them into `events`, and send them to Kafka after the answer."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache, partial

from starlette.requests import Request
from starlette.responses import Response

from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.errors import Rejected, TwofoldError, Unavailable, unexpected
from twofold.observability.context import EVENT_ID
from twofold.observability.telemetry import Telemetry
from twofold.query.parameters import parse_query
from twofold.settings import AuthSettings, LogSettings, PublishSettings, SenderSettings
from twofold.web.api import NoParameters
from twofold.web.auth import authenticator
from twofold.web.bodies import JsonResponse, read_body, require_method
from twofold.web.function import serve
from twofold.web.permissions import Permission, Principal
from twofold.web.problems import retry_headers
from twofold.web.start import load_settings
from twofold.write.decoding import in_decoding_thread, is_costly
from twofold.write.publisher import Publisher, open_publisher

from .results import batch_results, batch_status, result_of
from .webhooks import METHODS, answer_options

logger = logging.getLogger(__name__)


class Settings(SenderSettings, PublishSettings, AuthSettings, LogSettings):
    """The settings of `publish`."""


settings = load_settings(Settings, "publish")
callers = authenticator(settings)


@cache
def description() -> Response:
    """Return the answer of `/openapi.json`."""
    from twofold.web.openapi import describe  # noqa: PLC0415 - no start needs the description

    from .operations import OPERATIONS  # noqa: PLC0415

    return JsonResponse(describe("publish", OPERATIONS))


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Publisher]:
    """Open the connections of a worker process."""
    async with open_publisher(settings, "publish", telemetry) as publisher:
        yield publisher


async def handle(publisher: Publisher, request: Request) -> Response:
    """Publish the event or the batch of the request. Raises `TwofoldError`."""
    if request.scope["method"] != "POST":
        return _answer_without_event(request)
    require_method(request, *METHODS)
    caller = await callers.principal(request.headers.raw)
    caller.require(Permission.PUBLISH)
    try:
        if request.scope["query_string"]:
            parse_query(request.scope["query_string"], NoParameters)
        body = await read_body(request, settings.max_body_bytes)
        await publisher.yield_to_pending_write()
        decode = partial(
            decode_http,
            request.scope["headers"],
            body,
            publisher.clock(),
            settings.max_batch_events,
            settings.max_record_bytes,
        )
        incoming = await in_decoding_thread(decode) if (costly := is_costly(body)) else decode()
    except Rejected as error:
        raise publisher.count_rejection(error) from None
    if not isinstance(incoming, IncomingEvent):
        return await _publish_batch(publisher, request, caller, incoming, costly)
    EVENT_ID.set(incoming.encoded.given_id)
    if refusal := caller.refusal(incoming.encoded.attributes):
        raise publisher.count_rejection(refusal)
    (outcome,) = await publisher.publish([incoming], costly=costly)
    if isinstance(outcome, TwofoldError):
        raise outcome
    return _accepted_response(request, result_of(outcome))


def _answer_without_event(request: Request) -> Response:
    """Return the description of the API, or the answer to the handshake of a webhook. Raises `HTTPException`."""
    if request.method == "GET" and request.scope["path"] == "/openapi.json":
        return description()
    require_method(request, *METHODS)
    return answer_options(request, settings.webhook_origins)


def _if_permitted(caller: Principal, event: IncomingEvent | Rejected) -> IncomingEvent | Rejected:
    if isinstance(event, Rejected):
        return event
    try:
        return caller.refusal(event.encoded.attributes) or event
    except Exception as error:  # noqa: BLE001 - it must harm no other event of the batch
        return unexpected(error, "the permission for an event")


async def _publish_batch(
    publisher: Publisher, request: Request, caller: Principal, events: Iterator[IncomingEvent | Rejected], costly: bool
) -> Response:
    """Publish a batch, and answer with the result of each event in the order of the batch: see `batch_status`.

    `Publisher` raises `Unavailable` when no event is known to be stored. A refused event keeps its own error then.
    """
    given_ids: list[str | None] = []
    refusals: list[Rejected | None] = []

    def permitted() -> Iterator[IncomingEvent | Rejected]:
        for event in events:
            outcome = _if_permitted(caller, event)
            given_ids.append(event.given_id if isinstance(event, Rejected) else event.encoded.given_id)
            refusals.append(outcome if isinstance(outcome, Rejected) else None)
            yield outcome

    try:
        outcomes = await publisher.publish(permitted(), costly=costly)
    except Unavailable as unavailable:
        outcomes = [refusal or unavailable for refusal in refusals]
    results, status = batch_results(given_ids, outcomes), batch_status(outcomes)
    if status == 202:
        return _accepted_response(request, results)
    if status != 503:
        return JsonResponse(results, status_code=status)
    error = next(outcome for outcome in outcomes if isinstance(outcome, Unavailable))
    logger.warning("503 for a batch: %s", error.detail, exc_info=error.__cause__)
    return JsonResponse(results, status_code=status, headers=retry_headers(error))


def _accepted_response(request: Request, content: object) -> Response:
    """Return 202, without a body for `Prefer: reply`: a Broker would read the body as a reply event."""
    for line in request.headers.getlist("prefer"):
        if any(preference.partition(";")[0].strip().lower() == "reply" for preference in line.split(",")):
            return Response(status_code=202)
    return JsonResponse(content, status_code=202)


publish = serve("publish", open_service, handle, settings=settings, finish=Publisher.flush, topic=settings.kafka_topic)
