"""`admin`: `events` for those who look after it, by HTTP: browse, statistics, export, delete."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.read.admin_events import AdminEventsRepository
from twofold.read.admin_statistics import AdminStatistics
from twofold.settings import Settings
from twofold.storage.archive import Archive
from twofold.web.api import Api
from twofold.web.auth import authenticator
from twofold.web.function import Function
from twofold.web.openapi import describe

from .operations import OPERATIONS, Admin

settings = Settings()
write_logs(settings, "admin")
api = Api(OPERATIONS, authenticator(settings), partial(describe, "admin", OPERATIONS))


@asynccontextmanager
async def open_service(_: Telemetry) -> AsyncIterator[Admin]:
    """What one worker process works with."""
    async with open_database(settings, "admin") as database:
        yield Admin(AdminEventsRepository(database, settings), AdminStatistics(database, settings), Archive(database))


function = Function("admin", settings, open_service, api.handle)


@functions_framework.aio.http
async def admin(request: Request) -> Response:
    """The HTTP function."""
    return await function(request)
