"""`dead_letters`: the dead-letter sink of the KafkaSource. Keeps what a source gave up on, as it came."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold import mongo
from twofold.dead_letters import DeadLetters
from twofold.http import Function, allow, read_body
from twofold.logs import write_logs
from twofold.settings import Settings
from twofold.storing import keep_undelivered
from twofold.telemetry import Telemetry

settings = Settings()
write_logs(settings, "dead_letters")


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[DeadLetters]:
    """What one worker process works with."""
    async with mongo.connect(settings, "dead_letters") as database:
        yield DeadLetters(database, telemetry)


async def handle(letters: DeadLetters, request: Request) -> Response:
    """Answer 200 once the letter is durable. Raises `Unavailable`."""
    allow(request, "POST")
    await keep_undelivered(letters, request.headers.raw, await read_body(request, settings.max_letter_bytes))
    return Response(status_code=200)


function = Function("dead_letters", settings, open_service, handle)


@functions_framework.aio.http
async def dead_letters(request: Request) -> Response:
    """The sink of the KafkaSource's dead letters."""
    return await function(request)
