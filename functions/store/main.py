"""`store`: the sink of the KafkaSource. It appends events to `event_store`, and keeps poison as dead letters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from twofold.mongo.client import open_database
from twofold.observability.telemetry import Telemetry
from twofold.settings import LogSettings, MongoSettings, StoreSettings, TopicSettings
from twofold.web.bodies import read_body, require_method
from twofold.web.function import serve
from twofold.web.start import load_settings
from twofold.write.store import Store

DURABLE = Response(status_code=200)


class Settings(MongoSettings, TopicSettings, StoreSettings, LogSettings):
    """The settings of `store`."""


settings = load_settings(Settings, "store")


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Store]:
    """Open the connections of a worker process."""
    async with open_database(settings, "store") as database:
        yield Store(database, settings, lambda: datetime.now(UTC), telemetry=telemetry)


async def handle(service: Store, request: Request) -> Response:
    """Answer 200 when the delivery is durable. Raises `Unavailable`."""
    require_method(request, "POST")
    await service.take(request.scope["headers"], await read_body(request, settings.max_delivery_bytes))
    return DURABLE


store = serve("store", open_service, handle, settings=settings, topic=settings.kafka_topic)
