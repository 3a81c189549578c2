"""Faults of correct parts with other input: processes with other settings, and events at every bound."""

import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from dev.comparison import SentEvent
from dev.faults.bounds import BOUNDS, at_bounds
from dev.faults.log_damage import reconcile
from dev.faults.publishers import Item
from dev.faults.site import Site, await_effect
from dev.process.child import free_port
from dev.stack.functions import FunctionProcess
from twofold.errors import Rejected

HELD_S = (8.0, 11.0)
"""Longer than an insert may take, and than checkpoints and the feed stay behind the newest event."""


def other_settings(site: Site, rng: random.Random) -> None:
    """Publish by a process whose inserts may take 30 s, and hold some of them up. Then reconcile a log without a loss.

    A transaction that has the same `_id` holds an insert up: the server tries it again until `maxTimeMS`.
    """
    settings = site.stack.function_environment("publish") | {"MONGODB_TIMEOUT_S": "30", "RETENTION_DAYS": "30"}
    patient = FunctionProcess("publish", free_port(), settings, logs=site.stack.logs / "patient")
    patient.start()
    usual, site.load.urls = site.load.urls, (patient.url,)
    try:
        items = [Item(SentEvent.of(event), "new") for event in site.load.orders(8)]
        with site.database.client.start_session() as session, session.start_transaction():
            for item in items:
                site.database.events.insert_one({"_id": item.sent.event_id}, session=session)
            site.load.waiting.extend(items)
            time.sleep(rng.uniform(*HELD_S))
            session.abort_transaction()
    finally:
        site.load.urls = usual
        patient.kill()
    now = datetime.now(UTC)
    reconcile(site, now - timedelta(seconds=site.pace.retention_s), now)


def events_at_bounds(site: Site, rng: random.Random) -> None:
    """Publish events at every bound of an event, and a little beyond it."""
    for event in at_bounds(iter(site.load.orders(5 * len(BOUNDS))), rng):
        with suppress(Rejected):  # not even its sender can compute its digest
            site.load.waiting.append(Item(SentEvent.of(event), "bound"))
    await_effect(lambda: not site.load.waiting, "the events at the bounds are published")
