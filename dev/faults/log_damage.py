"""Faults that remove documents of `event_store`, and the steps of the operator after them (docs/operations.md).

A head of the log is among the removed documents, because no other removal can be seen. No event is removed that has, or
may get, other content in the topic: the other content would take its place in the log.
"""

import random
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern
from pymongo.errors import BulkWriteError

from dev.database import CODEC, Document
from dev.faults.site import Site, await_effect
from dev.process.child import StartFailed

RECONCILED_WITHIN_S = 180.0
CONFIRMED_S = 2.0
"""After its first look, relay has confirmed some events that the copy lacks."""
DAMAGED_S = (3.0, 8.0)
"""From the alarm to the operator's next step: relay runs several times, and a reader could pass the hole."""
_NAMED_TIME = re.compile(r"the log lacks an event that was stored at (\S+Z)")
_CHOSEN_BY_THEN_S = 0.1


def log_part_removed(site: Site, rng: random.Random) -> None:
    """Remove some documents whose events are still in `events`, and reconcile without a backup."""
    with _calm(site) as exempt:
        await_checkpoint(site)
        head = _head(site, rng, lambda: _removable(site, exempt))
        removable = sorted(_removable(site, exempt))
        removed = {head["_id"], *rng.sample(removable, int(len(removable) * rng.uniform(0.1, 0.9)))}
        lost_at = datetime.now(UTC)
        _remove(site, {"_id": {"$in": list(removed)}})
        _await_alarm(site, rng)
        reconcile(site, lost_at - timedelta(days=1), lost_at)


def log_restored(site: Site, rng: random.Random) -> None:
    """Copy the log as mongodump does, remove its newest part, insert the copy, and reconcile."""
    with _calm(site) as exempt:
        await_checkpoint(site)
        raw = site.database.event_store.with_options(CODEC.with_options(document_class=RawBSONDocument))
        head = _head(site, rng, lambda: set(site.database.event_store.distinct("_id")) - exempt)
        began = datetime.now(UTC).replace(microsecond=0)
        copy = list(raw.find().sort("seq", 1))
        first = rng.choice([document["seq"] for document in copy if document["seq"] <= head["seq"]])
        time.sleep(site.pace.first_look_s + CONFIRMED_S + rng.uniform(*site.pace.down_s))
        _remove(site, {"seq": {"$gte": first}, "_id": {"$nin": list(exempt)}})
        _await_alarm(site, rng)
        with suppress(BulkWriteError):  # existing documents stay, as with mongorestore
            raw.insert_many(copy, ordered=False)
        reconcile(site, began, began)


def await_checkpoint(site: Site, **figures: object) -> None:
    """Wait until relay records a checkpoint with these figures."""
    fresh = {"kind": "checkpoint", "at": {"$gt": datetime.now(UTC)}, **figures}
    await_effect(lambda: site.database.checkpoints.find_one(fresh) is not None, f"relay records {figures}", every=0.1)


def reconcile(site: Site, since: datetime, lost_at: datetime) -> None:
    """Reconcile from a shell with the default retention. Then tell the readers when the log was lost.

    `reconcile` may refuse a time after a loss that it knows, and name the time to give.
    """
    start = f"{since:%Y-%m-%dT%H:%M:%SZ}"
    while site.operator("reconcile", "--from", start, "--json", RETENTION_DAYS="30").wait(RECONCILED_WITHIN_S):
        named = _NAMED_TIME.findall((site.stack.logs / "operator.log").read_text()[-500:])
        if not named or named[-1] >= start:
            raise StartFailed("faults: reconcile failed: see operator.log")
        start = named[-1]
    for reader in site.readers:
        reader.told(lost_at)


@contextmanager
def _calm(site: Site) -> Iterator[set[UUID]]:
    """Let no event get other content. Return the events with other content."""
    with site.poisoner.lock:
        site.load.calm.set()
        try:
            time.sleep(_CHOSEN_BY_THEN_S)
            yield site.load.contested | site.poisoner.forged | site.load.ledger.late.keys()
        finally:
            site.load.calm.clear()


def _head(site: Site, rng: random.Random, allowed: Callable[[], Collection[UUID]]) -> Document:
    """Return a head of the log among the allowed events, as the last document of `checkpoints` names it."""
    found: list[Document] = []

    def look() -> bool:
        last, ids = site.database.checkpoints.find_one(sort=[("seq", -1)]), allowed()
        found.extend(head for head in (last or {"heads": ()})["heads"] if head["_id"] in ids)
        return bool(found)

    await_effect(look, "a head can be removed", every=0.2)
    return rng.choice(found)


def _removable(site: Site, exempt: Collection[UUID]) -> set[UUID]:
    """Return the events of the log that stay in `events` until relay sees the loss: they can come back from there."""
    until = datetime.now(UTC) + timedelta(seconds=site.pace.retention_s / 2)
    kept = {"$or": [{"expires_at": None}, {"expires_at": {"$gt": until}}]}
    events = {event["_id"]: event["digest"] for event in site.database.events.find(kept, {"digest": 1})}
    logged = site.database.event_store.find({"_id": {"$in": list(events.keys() - exempt)}}, {"digest": 1})
    return {document["_id"] for document in logged if document["digest"] == events[document["_id"]]}


def _remove(site: Site, documents: Document) -> None:
    """Remove documents in one transaction: nobody sees the log without some of them, and with the head."""
    with site.database.client.start_session() as session:
        session.with_transaction(
            lambda its: site.database.event_store.delete_many(documents, session=its),
            write_concern=WriteConcern("majority"),
        )


def _await_alarm(site: Site, rng: random.Random) -> None:
    await_checkpoint(site, log_regressed=True)
    time.sleep(rng.uniform(*DAMAGED_S))
