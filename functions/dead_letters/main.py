"""`dead_letters`: the dead-letter sink of the KafkaSource. Keeps what a source gave up on, as it came."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.settings import Settings
from twofold.storage.dead_letters import DeadLetters
from twofold.web.bodies import read_body, require_method
from twofold.web.function import Function
from twofold.write.store import keep_undelivered

settings = Settings()
write_logs(settings, "dead_letters")


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[DeadLetters]:
    """What one worker process works with."""
    async with open_database(settings, "dead_letters") as database:
        yield DeadLetters(database, telemetry)


async def handle(letters: DeadLetters, request: Request) -> Response:
    """Answer 200 once the letter is durable. Raises `Unavailable`."""
    require_method(request, "POST")
    await keep_undelivered(letters, request.headers.raw, await read_body(request, settings.max_letter_bytes))
    return Response(status_code=200)


function = Function("dead_letters", settings, open_service, handle)


@functions_framework.aio.http
async def dead_letters(request: Request) -> Response:
    """The sink of the KafkaSource's dead letters."""
    return await function(request)
