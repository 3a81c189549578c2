"""`audit`: auditors' questions about `event_store`, by HTTP: history, statistics, and the feed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.logs import write_logs
from twofold.observability.telemetry import Telemetry
from twofold.read.feed import Feed
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.web.api import Api
from twofold.web.auth import authenticator
from twofold.web.function import Function
from twofold.web.openapi import describe

from .operations import OPERATIONS, Audit

settings = Settings()
write_logs(settings, "audit")
api = Api(OPERATIONS, authenticator(settings), partial(describe, "audit", OPERATIONS))


@asynccontextmanager
async def open_service(_: Telemetry) -> AsyncIterator[Audit]:
    """What one worker process works with."""
    async with open_database(settings, "audit") as database:
        event_store = EventStore(database)
        yield Audit(
            event_store,
            event_store.reader(settings),
            Feed(database, timedelta(seconds=settings.mongodb_timeout_s)),
            settings.security_types,
            settings.page_bytes,
            settings.query_timeout_s,
        )


function = Function("audit", settings, open_service, api.handle)


@functions_framework.aio.http
async def audit(request: Request) -> Response:
    """The HTTP function."""
    return await function(request)
