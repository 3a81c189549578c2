"""`store`: the KafkaSource's sink. Appends each event to `event_store`; what it can't take becomes a dead letter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.settings import Settings
from twofold.web.bodies import read_body, require_method
from twofold.web.function import Function
from twofold.write.store import Store

settings = Settings()
write_logs(settings, "store")
DURABLE = Response(status_code=200)


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Store]:
    """What one worker process works with."""
    async with open_database(settings, "store") as database:
        yield Store(database, settings, lambda: datetime.now(UTC), telemetry=telemetry)


async def handle(service: Store, request: Request) -> Response:
    """Answer 200 once the delivery is durable somewhere. Raises `Unavailable`."""
    require_method(request, "POST")
    await service.take(request.scope["headers"], await read_body(request, settings.max_letter_bytes))
    return DURABLE


function = Function("store", settings, open_service, handle)


@functions_framework.aio.http
async def store(request: Request) -> Response:
    """The sink of the KafkaSource."""
    return await function(request)
