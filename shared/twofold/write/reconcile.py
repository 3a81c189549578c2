"""Reconcile: after the restore of `event_store` from a backup, give outbox entries to the events that the log lacks.

The relay confirmed an event once, and removed its outbox entry. If the restored log lacks the event, only `reconcile`
notices. It goes through `events` and `archive` in chunks, in the order of `_id`, and looks the events up in the log. An
interrupted `reconcile` is run again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from twofold.errors import Unavailable
from twofold.mongo.client import Database
from twofold.mongo.lock import hold_lock
from twofold.settings import RelaySettings
from twofold.storage.archive import Archive
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.outbox import Outbox

LONGEST_WAIT_S = 120
"""The longest wait for a running relay. The lock of a dead relay expires before."""


@dataclass(slots=True)
class Reconciliation:
    """The number of events by result."""

    looked_at: int = 0
    reopened: int = 0
    """Missing in the log: they have a new outbox entry, and the relay sends them."""
    conflicting: int = 0
    """In the log with other content: they have a new outbox entry too, so they stay, and checkpoints count them."""
    brought_back: int = 0
    """Deleted from `events`, and missing in the log: they are in `events` again, with an outbox entry."""


async def reconcile(
    database: Database, settings: RelaySettings, since: datetime, progress: Callable[[int], None] = lambda _: None
) -> Reconciliation:
    """Reopen the events that the relay found in the log at `since` or later, and that are not there now.

    `since` is the start of the backup, or earlier, by the server's clock. The time of acceptance does not matter: an
    event may have waited for Kafka during the backup. Deleted events that the log lacks are brought back. `progress`
    gets the number of events so far. The end of `reconcile` begins a new epoch of the log, so readers of the feed must
    begin again. Raises `Unavailable` when MongoDB is unavailable, and `Malformed` if `since` is after a known loss.
    """
    checkpoints = Checkpoints(database)
    await _wait_for_relay(database)
    before = await checkpoints.begin_reconciliation(since)
    events, outbox, event_store = EventRepository(database), Outbox(database), EventStore(database)
    result, last = Reconciliation(), None
    while chunk := await events.after(last, settings.relay_batch):
        last = chunk[-1]["_id"]
        confirmed = {
            document["_id"]: document["digest"]
            for document in chunk
            if "outbox" not in document and document.get("confirmed_at", since) >= since
        }
        in_log = await event_store.known(list(confirmed))
        missing = [event_id for event_id in confirmed if event_id not in in_log]
        conflicting = [event_id for event_id, digest in in_log.items() if digest != confirmed[event_id]]
        result.reopened += await outbox.reopen(missing)
        result.conflicting += await outbox.reopen(conflicting)
        result.looked_at += len(chunk)
        progress(result.looked_at)
    result.brought_back = await _bring_back(Archive(database), event_store, since, settings.relay_batch)
    await checkpoints.record_reconciliation(before, {"since": since, **asdict(result)})
    return result


async def _wait_for_relay(database: Database) -> None:
    """Wait until no relay works with an answer of the log from before the restore. Raises `Unavailable` in the end."""
    for _ in range(LONGEST_WAIT_S):
        async with hold_lock(database, "relay", timedelta(seconds=1)) as lock:
            if lock:
                return
        await asyncio.sleep(1)
    raise Unavailable(f"a relay has been running for {LONGEST_WAIT_S} seconds: try again")


async def _bring_back(archive: Archive, event_store: EventStore, since: datetime, size: int) -> int:
    """Bring back the archived events that the log lacks, if they were deleted at `since` or later."""
    last, brought_back = None, 0
    while chunk := await archive.after(last, size):
        last = chunk[-1].deletion_id
        in_log = await event_store.known([archived.event_id for archived in chunk])
        missing = [
            archived.deletion_id
            for archived in chunk
            if archived.deleted_at >= since and in_log.get(archived.event_id) != archived.digest
        ]
        brought_back += await archive.bring_back(missing)
    return brought_back
