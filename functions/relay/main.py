"""`relay`: the sink of a PingSource. It confirms the events that the log has, and sends the missing events again.

GET answers the last completeness checkpoint.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from twofold.kafka.sender import Sender
from twofold.mongo.client import open_database
from twofold.observability.telemetry import Telemetry
from twofold.settings import LogSettings, RelaySettings, SenderSettings
from twofold.web.bodies import JsonResponse, require_method
from twofold.web.function import serve
from twofold.web.start import load_settings
from twofold.write.relay import Relay, open_relay


class Settings(SenderSettings, RelaySettings, LogSettings):
    """The settings of `relay`."""


settings = load_settings(Settings, "relay")


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Relay]:
    """Open the connections of a worker process."""
    async with open_database(settings, "relay") as database:
        yield open_relay(database, Sender(settings), settings, telemetry)


async def handle(service: Relay, request: Request) -> Response:
    """Run the relay and answer the result, or answer the last checkpoint. Raises `Unavailable`."""
    require_method(request, "GET", "POST")
    if request.method == "GET":
        return JsonResponse(await service.last_checkpoint())
    run = await service.run()
    return JsonResponse(run or {"busy": "another relay is running"})


relay = serve("relay", open_service, handle, settings=settings)
