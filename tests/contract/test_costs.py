"""The cost of a run of the relay, measured by the server's profiler: it does not grow with the collections."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from bson.timestamp import Timestamp

from tests.helpers import accept, an_event, log, some_events
from twofold.kafka.lag import Backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, Document
from twofold.settings import Settings
from twofold.storage.outbox import Outbox
from twofold.write.relay import Relay

pytestmark = pytest.mark.guarantee("G5", "G10")

CONFIRMED, DUE = 3000, 10


@asynccontextmanager
async def profiled(database: Database) -> AsyncIterator[list[Document]]:
    """Yield a list. After the block it has the operations on Twofold's collections."""
    operations: list[Document] = []
    await database.command("profile", 2)
    try:
        yield operations
    finally:
        await database.command("profile", 0)
    ours = {"ns": {"$in": [f"{database.name}.{name}" for name in ("events", "event_store", "dead_letters")]}}
    operations += [operation async for operation in database["system.profile"].find(ours)]


async def fill(database: Database) -> None:
    """Insert finished documents into both collections."""
    ids = [uuid4() for _ in range(CONFIRMED)]
    expires_at = datetime.now(UTC) + timedelta(days=1)
    await database["events"].insert_many(
        [{"_id": id_, "seq": Timestamp(1, 1), "digest": b"x" * 32, "expires_at": expires_at} for id_ in ids]
    )
    await database["event_store"].insert_many(
        [{"_id": id_, "seq": Timestamp(1, n), "digest": b"x" * 32} for n, id_ in enumerate(ids)]
    )
    await database["dead_letters"].insert_many(
        [{"_id": id_, "state": "stored", "reason": "undelivered", "event_id": id_, "history": []} for id_ in ids]
    )


async def test_no_query_of_a_run_examines_finished_documents(database: Database, settings: Settings) -> None:
    """Ten events are due, and the log has five of them. A query uses an index and examines these ten at most."""

    async def nothing_waits() -> Backlog:
        return Backlog({}, {})

    eager = settings.model_copy(update={"relay_first_look_s": -2.0})
    sender = Sender(eager)
    relay = Relay(database, sender, eager, time.monotonic, nothing_waits)
    await fill(database)
    await relay.run()  # its checkpoint counts the stored events; the next checkpoint counts from there
    events = some_events(DUE)
    await accept(database, *events[5:], *events[:5])
    await log(database, *events[:5])
    async with profiled(database) as operations:
        run = await relay.run()
    sender.close(0.0)
    assert run is not None
    assert (run.confirmed, run.resent) == (5, 5)
    looked = [operation for operation in operations if operation["op"] in ("query", "command", "update", "getmore")]
    assert {operation["ns"].rpartition(".")[2] for operation in looked} == {"events", "event_store", "dead_letters"}
    assert len(looked) > 10
    for operation in looked:
        description = f"{operation['ns']} {operation.get('command')} {operation.get('planSummary')}"
        assert "COLLSCAN" not in operation.get("planSummary", ""), description
        assert operation.get("docsExamined", 0) <= DUE, description
        assert operation.get("keysExamined", 0) <= 3 * DUE, description


async def test_reading_due_entries_stops_at_the_limit(database: Database) -> None:
    """A long outage leaves many entries, and a batch costs only its own size."""
    await accept(database, *[an_event() for _ in range(500)])
    far = datetime.now(UTC) + timedelta(seconds=5)
    async with profiled(database) as operations:
        assert len(await Outbox(database).due(far, timedelta(0), DUE)) == DUE
    assert max(operation.get("docsExamined", 0) for operation in operations) <= DUE
