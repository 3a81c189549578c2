"""`query`: people's questions about `events`, by HTTP: pages, one event, counts, a live stream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.settings import Settings
from twofold.storage.events import EventRepository
from twofold.web.api import Api
from twofold.web.auth import authenticator
from twofold.web.function import Function
from twofold.web.openapi import describe
from twofold.web.shutdown import before_sigterm

from .operations import OPERATIONS, Query

settings = Settings()
write_logs(settings, "query")
api = Api(OPERATIONS, authenticator(settings), partial(describe, "query", OPERATIONS))


@asynccontextmanager
async def open_service(_: Telemetry) -> AsyncIterator[Query]:
    """What one worker process works with."""
    async with open_database(settings, "query") as database:
        events = EventRepository(database)
        service = Query(events.reader(settings), events.statistics(settings), events.live(settings))
        before_sigterm(service.live.close)
        yield service


function = Function("query", settings, open_service, api.handle)


@functions_framework.aio.http
async def query(request: Request) -> Response:
    """The HTTP function."""
    return await function(request)
