"""`relay`: woken by a PingSource; takes the marks off what is in the log, and sends again what isn't."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from twofold import mongo
from twofold.http import Function, allow
from twofold.kafka import new_sender
from twofold.relaying import Relay
from twofold.settings import Settings

settings = Settings()


@asynccontextmanager
async def open_service() -> AsyncIterator[Relay]:
    """What one worker process works with."""
    sender = new_sender(settings)
    async with mongo.connect(settings, "relay") as database:
        yield Relay(database, sender, settings, time.monotonic)


async def handle(service: Relay, request: Request) -> Response:
    """Run once, and answer what the run did. Raises `Unavailable`."""
    allow(request, "POST")
    run = await service.run()
    return JSONResponse(asdict(run) if run else {"busy": "another relay is at it"})


function = Function(open_service, handle)


@functions_framework.aio.http
async def relay(request: Request) -> Response:
    """The sink of the PingSource."""
    return await function(request)
