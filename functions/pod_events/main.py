"""`pod_events`: the sink of an ApiServerSource and of a PingSource. Publishes the facts of each pod's life, once."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from functions.pod_events.pod_state import PodStates
from twofold.mongo.client import open_database
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.settings import SenderSettings
from twofold.storage.dead_letters import DeadLetters
from twofold.web.bodies import JsonResponse, read_body, require_method
from twofold.web.function import Function
from twofold.web.shutdown import before_sigterm
from twofold.write.publisher import open_publisher

from .identity import Identity
from .listing import Listing, Pods
from .watching import Watcher

PING = "dev.knative.sources.ping"

settings = SenderSettings()
write_logs(settings, "pod_events")


class Service(NamedTuple):
    """What one worker process works with."""

    watcher: Watcher
    listing: Listing


def connect() -> Pods:
    """The API server's pods. Only who lists needs the client, which takes a second and 60 MiB to load."""
    from .cluster import connect  # noqa: PLC0415

    return connect(settings)


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Service]:
    """Open the connections of one worker process."""
    identity = Identity(
        settings.pods_cluster,
        settings.pods_aggregate_keys,
        settings.pods_correlation_keys,
        settings.pods_user_keys,
    )
    async with (
        open_database(settings, "pod_events") as database,
        open_publisher(settings, "pod_events", telemetry) as publisher,
    ):
        before_sigterm(publisher.flush)
        watcher = Watcher(
            publisher,
            PodStates(database),
            DeadLetters(database, telemetry),
            identity,
            ignored_namespaces=settings.pods_ignored_namespaces,
            clock=lambda: datetime.now(UTC),
        )
        listing = Listing(
            database,
            publisher,
            watcher,
            settings.pods_cluster,
            connect,
            budget_s=settings.pods_budget_s,
            seconds=time.monotonic,
        )
        yield Service(watcher, listing)


async def handle(service: Service, request: Request) -> Response:
    """Answer 200 once the delivery is durable somewhere; to a ping, with what the listing did.

    Raises `Unavailable`, and `ReferenceMode` with the fix.
    """
    require_method(request, "POST")
    if request.headers.get("ce-type") == PING:
        run = await service.listing.run()
        return JsonResponse(run or {"busy": "another listing is at it"})
    await service.watcher.take(request.headers.raw, await read_body(request, settings.max_letter_bytes))
    return Response(status_code=200)


function = Function("pod_events", settings, open_service, handle)


@functions_framework.aio.http
async def pod_events(request: Request) -> Response:
    """The sink of the ApiServerSource and of the PingSource."""
    return await function(request)
