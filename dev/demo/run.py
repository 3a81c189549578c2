"""A run of the demo on a running stack."""

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pymongo.database import Database

from dev.comparison import SentEvent, compare
from dev.database import ChangeFollower, Document, majority
from dev.demo import kinds, pods
from dev.demo.publishing import PublishTally, publish_all
from dev.demo.submissions import orders
from dev.load.events import EventJson
from dev.process.child import wait_until
from dev.stack.running import Running, Steps
from twofold.event.reserved import POD_SOURCE

ORDERS: Document = {"metadata.service_name": {"$nin": [POD_SOURCE, kinds.SOURCE]}}
WITHIN_S = 150.0
"""Long enough for an event that relay sends again, a minute after its first check."""


class DemoReport(NamedTuple):
    """The result of the demo."""

    figures: dict[str, Any]
    """The figures for `JSON=FILE`. `events` and `event_store` count the orders alone."""
    timeline: list[Document]
    """The events of the shown pod, by time."""
    complaints: list[str]


def run(running: Running, on_step: Steps) -> DemoReport:
    """Publish, wait, read both collections directly, and compare."""
    run_id = secrets.token_hex(4)
    events = orders(run_id)
    seen_at: dict[Any, float] = {}

    def note(change: Mapping[str, Any]) -> None:
        if isinstance(payload := change["fullDocument"].get("payload"), dict):
            seen_at.setdefault(payload.get("n"), time.monotonic())

    with majority(running.mongodb_uri, running.database) as database:
        follower = ChangeFollower(database.event_store, [{"$match": {"operationType": "insert"}}], note)
        try:
            on_step(f"publishing {len(events)} events")
            tally = asyncio.run(publish_all(running, events))
            on_step(f"sending the states of {len(pods.LIVES)} pods, as an ApiServerSource does")
            tally.surprises += pods.send_lives(running.pod_events_url)
            tally.surprises += kinds.publish(running, run_id)
            on_step("waiting until event_store has the events and no outbox entry is left")
            wait_until(lambda: _is_complete(database, len(tally.accepted_at)), within=WITHIN_S, every=0.2)
        finally:
            follower.close()
        on_step("comparing the accepted events with both collections")
        report = _report(database, events, tally, seen_at)
    shown, wrong = kinds.read_back(running, run_id)
    return report._replace(figures=report.figures | {"kinds_of_data": shown}, complaints=report.complaints + wrong)


def _is_complete(database: Database[Document], accepted: int) -> bool:
    return database.event_store.count_documents(ORDERS) >= accepted and _outbox_entries(database) == 0


def _outbox_entries(database: Database[Document]) -> int:
    """Count a document without an expiry time too: relay sets it when it removes the outbox entry."""
    return database.events.count_documents({"$or": [{"outbox": {"$exists": True}}, {"expires_at": None}]})


def _report(
    database: Database[Document], made: Sequence[EventJson], tally: PublishTally, seen_at: Mapping[Any, float]
) -> DemoReport:
    accepted = [SentEvent.of(event) for event in made if event["data"]["n"] in tally.accepted_at]
    events, event_store = list(database.events.find(ORDERS)), list(database.event_store.find(ORDERS))
    pod_events = list(database.event_store.find(pods.OF_PODS))
    lags_ms = [max(0.0, seen_at[n] - at) * 1000 for n, at in tally.accepted_at.items() if n in seen_at]
    wrong = {name: len(found) for name, found in compare(accepted, events, event_store).items()}
    wrong["outbox_entries"] = _outbox_entries(database)
    figures = {
        "sent": tally.sent,
        "accepted": len(tally.accepted_at),
        "duplicates": tally.duplicates,
        "rejected": tally.rejected,
        "events": len(events),
        "event_store": len(event_store),
        **wrong,
        "pod_events": len(pod_events),
        "lag_ms_p50": percentile(lags_ms, 0.50),
        "lag_ms_p99": percentile(lags_ms, 0.99),
    }
    complaints = [f"{name}: {count}" for name, count in wrong.items() if count]
    if len(lags_ms) < len(accepted):
        complaints.append(f"events that never arrived in event_store: {len(accepted) - len(lags_ms)}")
    complaints += tally.surprises + pods.complaints(list(database.events.find(pods.OF_PODS)), pod_events)
    return DemoReport(figures, pods.timeline(pod_events), complaints)


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the measured value at this share of the sorted values (nearest rank); None without values."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None
