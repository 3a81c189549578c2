"""`relay`: woken by a PingSource; takes the marks off what is in the log, and sends again what isn't.

GET answers the last statement of completeness.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import functions_framework.aio
from pydantic_core import to_jsonable_python
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from twofold import mongo
from twofold.http import Function, allow
from twofold.kafka import new_sender
from twofold.relaying import Relay, open_relay
from twofold.settings import Settings
from twofold.telemetry import Telemetry

settings = Settings()


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Relay]:
    """What one worker process works with."""
    async with mongo.connect(settings, "relay") as database:
        yield open_relay(database, new_sender(settings), settings, telemetry)


async def handle(service: Relay, request: Request) -> Response:
    """Run once, and answer what the run did; or answer the last statement. Raises `Unavailable`."""
    allow(request, "GET", "POST")
    if request.method == "GET":
        return JSONResponse(to_jsonable_python(await service.last_statement()))
    run = await service.run()
    return JSONResponse(to_jsonable_python(run) if run else {"busy": "another relay is at it"})


function = Function("relay", settings, open_service, handle)


@functions_framework.aio.http
async def relay(request: Request) -> Response:
    """The sink of the PingSource."""
    return await function(request)
