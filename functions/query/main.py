"""`query` reads `events` for users over HTTP: pages, one event, statistics, and a live stream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from twofold.mongo.client import open_database
from twofold.observability.telemetry import Telemetry
from twofold.read.live import LiveEvents
from twofold.read.pages import EventReader
from twofold.read.statistics import EventStatistics
from twofold.settings import AuthSettings, LogSettings, MongoSettings, QuerySettings, StreamSettings
from twofold.web.api import Api
from twofold.web.auth import authenticator
from twofold.web.function import serve
from twofold.web.openapi import describe
from twofold.web.start import load_settings

from .operations import OPERATIONS, Query


class Settings(QuerySettings, StreamSettings, MongoSettings, AuthSettings, LogSettings):
    """The settings of `query`."""


settings = load_settings(Settings, "query")
api = Api(OPERATIONS, authenticator(settings), partial(describe, "query", OPERATIONS))


@asynccontextmanager
async def open_service(_: Telemetry) -> AsyncIterator[Query]:
    """Open the connections of a worker process."""
    async with open_database(settings, "query") as database:
        events = database["events"]
        yield Query(EventReader(events, settings), EventStatistics(events, settings), LiveEvents(events, settings))


async def end_streams(service: Query) -> None:
    """End the live streams. Their readers connect to another process and continue after their last event."""
    await service.live.close()


query = serve("query", open_service, api.handle, settings=settings, finish=end_streams)
