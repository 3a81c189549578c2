"""`audit` reads `event_store` for auditors over HTTP: history, security events, types, and the feed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from twofold.mongo.client import open_database
from twofold.observability.telemetry import Telemetry
from twofold.read.feed import Feed
from twofold.read.log_summary import LogSummary
from twofold.read.pages import EventReader
from twofold.settings import AuditSettings, AuthSettings, LogSettings, MongoSettings
from twofold.web.api import Api
from twofold.web.auth import authenticator
from twofold.web.function import serve
from twofold.web.openapi import describe
from twofold.web.start import load_settings

from .operations import OPERATIONS, Audit


class Settings(AuditSettings, MongoSettings, AuthSettings, LogSettings):
    """The settings of `audit`."""


settings = load_settings(Settings, "audit")
api = Api(OPERATIONS, authenticator(settings), partial(describe, "audit", OPERATIONS))


@asynccontextmanager
async def open_service(_: Telemetry) -> AsyncIterator[Audit]:
    """Open the connections of a worker process."""
    async with open_database(settings, "audit") as database:
        yield Audit(
            LogSummary(database),
            EventReader(database["event_store"], settings),
            Feed(database),
            settings,
        )


audit = serve("audit", open_service, api.handle, settings=settings)
