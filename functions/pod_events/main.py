"""`pod_events`: the sink of an ApiServerSource and of a PingSource. It publishes every fact of a pod's life once."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.telemetry import Telemetry
from twofold.settings import LogSettings, PodSettings, PublishSettings, SenderSettings
from twofold.storage.dead_letters import DeadLetters
from twofold.web.bodies import JsonResponse, read_body, require_method
from twofold.web.function import serve
from twofold.web.start import load_settings
from twofold.write.publisher import Publisher, open_publisher

from .identity import Identity
from .listing import Listing, PodApi
from .pod_state import PodStates
from .watching import PodWatcher

PING = "dev.knative.sources.ping"


class Settings(SenderSettings, PublishSettings, PodSettings, LogSettings):
    """The settings of `pod_events`."""


settings = load_settings(Settings, "pod_events")


class PodEvents(NamedTuple):
    """The parts of a worker process."""

    watcher: PodWatcher
    listing: Listing
    publisher: Publisher


def connect() -> PodApi:
    """Import the Kubernetes client at the first listing: it takes a second and 60 MiB to load."""
    from .cluster import connect  # noqa: PLC0415

    return connect(settings)


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[PodEvents]:
    """Open the connections of a worker process."""
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
        watcher = PodWatcher(
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
        yield PodEvents(watcher, listing, publisher)


async def handle(service: PodEvents, request: Request) -> Response:
    """Answer 200 when the delivery is durable. The answer to a ping is the result of the listing.

    Raises `Unavailable` and `ReferenceMode`.
    """
    require_method(request, "POST")
    if request.headers.get("ce-type") == PING:
        run = await service.listing.run()
        return JsonResponse(run or {"busy": "another listing is running"})
    await service.watcher.handle(request.headers.raw, await read_body(request, settings.max_delivery_bytes))
    return Response(status_code=200)


async def flush(service: PodEvents) -> None:
    """Wait a few seconds for Kafka's acknowledgements."""
    await service.publisher.flush()


pod_events = serve("pod_events", open_service, handle, settings=settings, finish=flush, topic=settings.kafka_topic)
