"""`relay`: woken by a PingSource; takes the marks off what is in the log, and sends again what isn't.

GET answers the last statement of completeness.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold.kafka.sender import Sender
from twofold.mongo.client import open_database
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.settings import SenderSettings
from twofold.web.bodies import JsonResponse, require_method
from twofold.web.function import Function
from twofold.write.relay import Relay, open_relay

settings = SenderSettings()
write_logs(settings, "relay")


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Relay]:
    """What one worker process works with."""
    async with open_database(settings, "relay") as database:
        yield open_relay(database, Sender(settings), settings, telemetry)


async def handle(service: Relay, request: Request) -> Response:
    """Run once, and answer what the run did; or answer the last statement. Raises `Unavailable`."""
    require_method(request, "GET", "POST")
    if request.method == "GET":
        return JsonResponse(await service.last_statement())
    run = await service.run()
    return JsonResponse(run or {"busy": "another relay is at it"})


function = Function("relay", settings, open_service, handle)


@functions_framework.aio.http
async def relay(request: Request) -> Response:
    """The sink of the PingSource."""
    return await function(request)
