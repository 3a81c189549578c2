"""`dead_letters`: the dead-letter sink of the KafkaSource. It keeps the deliveries that the source stopped retrying."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.telemetry import Telemetry
from twofold.settings import LogSettings, MongoSettings, RecordSettings
from twofold.storage.dead_letters import DeadLetters
from twofold.web.bodies import read_body, require_method
from twofold.web.function import serve
from twofold.web.start import load_settings
from twofold.write.store import keep_undelivered


class Settings(MongoSettings, RecordSettings, LogSettings):
    """The settings of `dead_letters`."""


settings = load_settings(Settings, "dead_letters")


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[DeadLetters]:
    """Open the connections of a worker process."""
    async with open_database(settings, "dead_letters") as database:
        yield DeadLetters(database, telemetry)


async def handle(service: DeadLetters, request: Request) -> Response:
    """Answer 200 when the dead letter is durable. Raises `Unavailable`."""
    require_method(request, "POST")
    body = await read_body(request, settings.max_delivery_bytes)
    await keep_undelivered(service, request.headers.raw, body, settings.max_message_bytes)
    return Response(status_code=200)


dead_letters = serve("dead_letters", open_service, handle, settings=settings)
