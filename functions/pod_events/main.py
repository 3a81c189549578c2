"""`pod_events`: the sink of an ApiServerSource. Publishes the facts of each pod's life, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold import mongo
from twofold.dead_letters import DeadLetters
from twofold.http import Function, allow, before_sigterm, read_body
from twofold.publishing import open_publisher
from twofold.seen_pods import SeenPods
from twofold.settings import Settings

from .identity import Identity
from .watching import Watcher

settings = Settings()


@asynccontextmanager
async def open_service() -> AsyncIterator[Watcher]:
    """What one worker process works with."""
    identity = Identity(
        settings.pods_cluster,
        settings.pods_aggregate_keys,
        settings.pods_correlation_keys,
        settings.pods_user_keys,
    )
    async with (
        mongo.connect(settings, "pod_events") as database,
        open_publisher(settings, "pod_events") as publisher,
    ):
        before_sigterm(publisher.flush)
        yield Watcher(
            publisher,
            SeenPods(database),
            DeadLetters(database),
            identity,
            ignored_namespaces=settings.pods_ignored_namespaces,
            clock=lambda: datetime.now(UTC),
        )


async def handle(watcher: Watcher, request: Request) -> Response:
    """Answer 200 once the delivery is durable somewhere. Raises `Unavailable`, and `ReferenceMode` with the fix."""
    allow(request, "POST")
    await watcher.take(request.headers.raw, await read_body(request, settings.max_letter_bytes))
    return Response(status_code=200)


function = Function(open_service, handle)


@functions_framework.aio.http
async def pod_events(request: Request) -> Response:
    """The sink of the ApiServerSource."""
    return await function(request)
