"""TODO module."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from twofold.mongo.client import Database, Document
from twofold.settings import RelaySettings
from twofold.storage.archive import Archive
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.outbox import Outbox


@dataclass(slots=True)
class Reconciliation:
    """What `reconcile` found in `events`."""

    looked_at: int = 0
    reopened: int = 0
    """Not in the log: marked again, so that the relay sends them."""
    conflicting: int = 0
    """The log has other content under their ids: marked again too, so that they stay, and are stated."""
    brought_back: int = 0
    """Deleted from `events` when the log had them, which it hasn't now: there again, and marked."""


async def reconcile(
    database: Database, settings: RelaySettings, since: datetime, progress: Callable[[int], None] = lambda _: None
) -> Reconciliation:
    """Put the marks back on what was found in the log at `since` (by the server's clock) or later, and isn't there now.

    When it was accepted does not matter: it may have waited for Kafka while the backup was made. What an admin deleted
    from `events` since then, and the log lacks, is brought back too. For the day on which `event_store` was restored
    from a backup: `since` is when the backup was begun, or earlier. Goes through all of `events` in pieces, in the
    order of `_id`; `progress` hears how many it has looked at. Stopped half-way, it is run again. Raises `Unavailable`
    when MongoDB is away.
    """
    events, outbox, event_store = EventRepository(database), Outbox(database), EventStore(database)
    retention = timedelta(days=settings.retention_days)
    done, last = Reconciliation(), None
    while piece := await events.after(last, settings.relay_batch):
        last = piece[-1]["_id"]
        confirmed = {
            document["_id"]: document["digest"]
            for document in piece
            if "outbox" not in document and _found_at(document, retention) >= since
        }
        in_log = await event_store.known(list(confirmed))
        lost = [event_id for event_id in confirmed if event_id not in in_log]
        conflicting = [event_id for event_id, digest in in_log.items() if digest != confirmed[event_id]]
        done.reopened += await outbox.reopen(lost)
        done.conflicting += await outbox.reopen(conflicting)
        done.looked_at += len(piece)
        progress(done.looked_at)
    done.brought_back = await _bring_back(Archive(database), event_store, since, settings.relay_batch)
    checkpoints = Checkpoints(database, timedelta(seconds=settings.mongodb_timeout_s))
    await checkpoints.record_reconciliation({"since": since, **asdict(done)})
    return done


def _found_at(document: Document, retention: timedelta) -> datetime:
    """When the relay found the event in the log; at the earliest when it was accepted."""
    accepted: datetime = document["seq"].as_datetime()
    return max(accepted, document["expires_at"] - retention) if "expires_at" in document else accepted


async def _bring_back(archive: Archive, event_store: EventStore, since: datetime, size: int) -> int:
    """Bring back the archived events of which the log should have each, and hasn't. Returns how many."""
    last, done = None, 0
    while piece := await archive.after(last, size):
        last = piece[-1].deletion_id
        in_log = await event_store.known([archived.event_id for archived in piece])
        lost = [
            archived.deletion_id
            for archived in piece
            if archived.deleted_at >= since and in_log.get(archived.event_id) != archived.digest
        ]
        done += await archive.bring_back(lost)
    return done
