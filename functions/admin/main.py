"""`admin` serves `events` to admins over HTTP: browse, statistics, export, and delete."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from twofold.mongo.client import open_database
from twofold.observability.telemetry import Telemetry
from twofold.read.admin_events import AdminEventsRepository
from twofold.read.admin_statistics import AdminStatistics
from twofold.settings import AdminSettings, AuthSettings, LogSettings, MongoSettings
from twofold.storage.archive import Archive
from twofold.web.api import Api
from twofold.web.auth import authenticator
from twofold.web.function import serve
from twofold.web.openapi import describe
from twofold.web.start import load_settings

from .operations import OPERATIONS, Admin


class Settings(AdminSettings, MongoSettings, AuthSettings, LogSettings):
    """The settings of `admin`."""


settings = load_settings(Settings, "admin")
api = Api(OPERATIONS, authenticator(settings), partial(describe, "admin", OPERATIONS))


@asynccontextmanager
async def open_service(_: Telemetry) -> AsyncIterator[Admin]:
    """Open the connections of a worker process."""
    async with open_database(settings, "admin") as database:
        yield Admin(AdminEventsRepository(database, settings), AdminStatistics(database, settings), Archive(database))


admin = serve("admin", open_service, api.handle, settings=settings)
