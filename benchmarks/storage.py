"""`python -m benchmarks.storage`: the disk space of a million events, on a real mongod, with indexes."""

import asyncio
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.events import PAYLOAD_BYTES, events
from dev.stack import Options, Stack
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.cloudevents.encode import encode_kafka
from twofold.event.model import Event
from twofold.mongo.client import Database, RawDocument, open_database
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.outbox import Outbox

GROUP = 500
COLLECTIONS = ("event_store", "events")
_MILLION = 1_000_000

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


class _EncodedDocument(NamedTuple):
    event_id: UUID
    digest: bytes
    document: RawDocument


@app.command()
def storage(
    count: Annotated[int, typer.Option("--events", min=GROUP, help="more take longer, and are more exact")] = 200_000,
) -> None:
    """Store events as `store` and `publish` do, and print their sizes in MongoDB."""
    with tempfile.TemporaryDirectory(prefix="twofold-storage-") as folder:
        options = Options(with_functions=(), logs=Path(folder))
        with Stack(options) as stack:
            settings = Settings.model_validate({name.lower(): value for name, value in stack.environment.items()})
            in_kafka = asyncio.run(_fill(settings, count))
            taken = asyncio.run(_taken(settings))
    _show(taken, in_kafka, count)


async def _fill(settings: Settings, count: int) -> int:
    """Fill both collections, with expiry times in `events`. Return the bytes of the records in Kafka."""
    in_kafka = 0
    async with open_database(settings, "storage") as database:
        event_store, repository, outbox = EventStore(database), EventRepository(database), Outbox(database)
        now = datetime.now(UTC)
        for number, group in enumerate(_groups(count)):
            stored, accepted = [], []
            for event in group:
                delivered = DeliveredEvent(event.to_document(), partition=number % 4, offset=number)
                stored.append(_EncodedDocument(event.event_id, event.digest, EventStore.encode(delivered, now)))
                document = EventRepository.encode(event.to_document(), now)
                accepted.append(_EncodedDocument(event.event_id, event.digest, document))
            await event_store.append(stored)
            await repository.insert(accepted)
            await outbox.confirm([event.event_id for event in group], timedelta(days=settings.retention_days))
            in_kafka += sum(encode_kafka(event).size for event in group)
        await database.client.admin.command("fsync")  # MongoDB counts only written pages
    return in_kafka


async def _taken(settings: Settings) -> dict[str, dict[str, Any]]:
    async with open_database(settings, "storage") as database:
        return {name: await _statistics(database, name) for name in COLLECTIONS}


async def _statistics(database: Database, collection: str) -> dict[str, Any]:
    found: dict[str, Any] = await database.command("collStats", collection)
    return found


def _groups(count: int) -> Iterator[list[Event]]:
    made = events(count, seed="storage")
    while group := list(islice(made, GROUP)):
        yield group


def _show(taken: dict[str, dict[str, Any]], in_kafka: int, count: int) -> None:
    table = Table(title=f"MB per million events, of {count:,} with payloads of {PAYLOAD_BYTES} bytes")
    table.add_column("")
    for heading in ("BSON", "on disk", "indexes", "together"):
        table.add_column(heading, justify="right")
    for name, found in taken.items():
        sizes = (found["size"], found["storageSize"], found["totalIndexSize"], found["totalSize"])
        table.add_row(f"{name} ({found['nindexes']} indexes)", *(_per_million(size, count) for size in sizes))
    table.add_row("Kafka's records, uncompressed", _per_million(in_kafka, count), "", "", "")
    Console().print(table)


def _per_million(size: float, count: int) -> str:
    return f"{size / count * _MILLION / 1e6:,.0f}"


if __name__ == "__main__":
    app()
