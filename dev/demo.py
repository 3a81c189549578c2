"""The demo: publish over HTTP, wait until the log has it, and compare what was accepted with what the servers hold."""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from dev import demo_events, demo_pods
from dev.demo_check import Findings, compare
from dev.demo_events import CloudEvent, Submission
from dev.demo_pods import OF_PODS, PUBLISHED
from dev.process.child import wait_until
from dev.stack.running import Running, Steps

Document = dict[str, Any]

CONCURRENCY = 16
TRIES = 10
SETTLED_WITHIN_S = 150.0
"""Long enough for an event that the relay has to send again, a minute after it first looked."""


@dataclass
class Tally:
    """What publish answered, in events."""

    sent: int = 0
    duplicates: int = 0
    rejected: int = 0
    accepted_at: dict[int, float] = field(default_factory=dict)
    """When the client had the 2xx of each event, by its marker; monotonic seconds."""
    surprises: list[str] = field(default_factory=list)
    """Answers that were not the expected ones."""


@dataclass(frozen=True)
class Report:
    """What the demo found."""

    tally: Tally
    findings: Findings
    events: int
    event_store: int
    outbox_entries: int
    lags_ms: list[float]
    pod_events: int
    """Events of pods in `event_store`; all other counts leave them out, but for the pending marks."""
    timeline: list[Document]
    """The events of one pod there, by their times."""
    pods_off: list[str]
    """What is wrong with the pods' events."""

    def complaints(self) -> list[str]:
        """Everything that is off; none is what the demo is for."""
        found = self.findings
        counts = {
            "lost": found.lost,
            "doubled": found.doubled,
            "differing": found.differing,
            "stored without having been accepted": found.unexpected,
            "marks still pending": self.outbox_entries,
            "never seen to arrive in event_store": len(self.tally.accepted_at) - len(self.lags_ms),
        }
        off = [f"{what}: {count}" for what, count in counts.items() if count]
        return off + self.tally.surprises + self.pods_off

    def as_json(self, start_s: float, running: Running) -> dict[str, Any]:
        """The keys that `JSON=FILE` gets."""
        return {
            "sent": self.tally.sent,
            "accepted": len(self.tally.accepted_at),
            "duplicates": self.tally.duplicates,
            "rejected": self.tally.rejected,
            "events": self.events,
            "event_store": self.event_store,
            "lost": self.findings.lost,
            "doubled": self.findings.doubled,
            "differing": self.findings.differing,
            "outbox_entries": self.outbox_entries,
            "pod_events": self.pod_events,
            "lag_ms_p50": percentile(self.lags_ms, 0.50),
            "lag_ms_p99": percentile(self.lags_ms, 0.99),
            "start_s": round(start_s, 2),
            "broker": running.broker,
        }


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value that this share of `values` does not exceed (nearest rank); None if there are none."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None


class Watcher:
    """Notes when each event is readable in `event_store`: a change stream shows what a majority has."""

    def __init__(self, event_store: Collection[Document]) -> None:
        self.seen_at: dict[int, float] = {}
        self._stream = event_store.watch([{"$match": {"operationType": "insert"}}], max_await_time_ms=200)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher")
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.is_set():
            change = self._stream.try_next()
            if change is not None:
                marker = change["fullDocument"]["payload"].get("n")
                self.seen_at.setdefault(marker, time.monotonic())

    def close(self) -> None:
        """End the stream and the thread."""
        self._ended.set()
        self._thread.join()
        self._stream.close()


def run(running: Running, on_step: Steps) -> Report:
    """Publish, wait, read both collections directly, and compare."""
    events = demo_events.orders(secrets.token_hex(4))
    with MongoClient[Document](running.mongodb_uri) as client:
        database = client.get_database(
            running.database,
            codec_options=CodecOptions(uuid_representation=UuidRepresentation.STANDARD, tz_aware=True),
            read_concern=ReadConcern("majority"),
        )
        watcher = Watcher(database.event_store)
        try:
            on_step(f"publishing {len(events)} events")
            tally = asyncio.run(publish_all(running, events))
            on_step(f"sending the states of {len(demo_pods.LIVES)} pods, as an ApiServerSource does")
            pods_off = demo_pods.send_lives(running.pod_events_url)
            on_step("waiting until event_store has them and every mark is off")
            wait_until(lambda: _settled(database, len(tally.accepted_at)), within=SETTLED_WITHIN_S, every=0.2)
        finally:
            watcher.close()
        on_step("comparing what was accepted with what both collections hold")
        return _report(database, events, tally, watcher, pods_off)


def _settled(database: Database[Document], accepted: int) -> bool:
    return _stored(database) >= accepted and _pending(database) == 0


def _stored(database: Database[Document]) -> int:
    return database.event_store.count_documents(PUBLISHED)


def _pending(database: Database[Document]) -> int:
    """Marks that are still on, and documents whose clock of retention did not start when theirs went."""
    return database.events.count_documents({"$or": [{"outbox": {"$exists": True}}, {"expires_at": None}]})


def _report(
    database: Database[Document], events: list[CloudEvent], tally: Tally, watcher: Watcher, pods_off: list[str]
) -> Report:
    accepted = [event for event in events if event["data"]["n"] in tally.accepted_at]
    projected, logged = list(database.events.find(PUBLISHED)), list(database.event_store.find(PUBLISHED))
    pods = list(database.event_store.find(OF_PODS))
    seen = watcher.seen_at
    return Report(
        tally=tally,
        findings=compare(accepted, projected, logged),
        events=len(projected),
        event_store=len(logged),
        outbox_entries=_pending(database),
        lags_ms=[max(0.0, seen[n] - at) * 1000 for n, at in tally.accepted_at.items() if n in seen],
        pod_events=len(pods),
        timeline=demo_pods.of_shown_pod(pods),
        pods_off=pods_off + demo_pods.findings(list(database.events.find(OF_PODS)), pods),
    )


async def publish_all(running: Running, events: list[CloudEvent]) -> Tally:
    """Send every event once, then some again, then what must be refused; many requests at a time."""
    tally = Tally()
    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(
        base_url=running.publish_url, headers=running.headers, limits=limits, timeout=30.0, trust_env=False
    ) as client:
        for submissions in (
            demo_events.first_sendings(events),
            demo_events.second_sendings(events),
            demo_events.refused(events),
        ):
            await _send_all(client, submissions, tally)
    return tally


async def _send_all(client: httpx.AsyncClient, submissions: Iterable[Submission], tally: Tally) -> None:
    remaining = iter(list(submissions))

    async def work() -> None:
        for submission in remaining:
            response = await _post(client, submission)
            _count(submission, response, time.monotonic(), tally)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def _post(client: httpx.AsyncClient, submission: Submission) -> httpx.Response:
    """Post as a sound client does: again, a little later, on 503 and on a broken connection."""
    for attempt in range(TRIES):
        try:
            response = await client.post("/", headers=submission.headers, content=submission.body)
        except httpx.TransportError:
            if attempt == TRIES - 1:
                raise
        else:
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or attempt == TRIES - 1:
                return response
        await asyncio.sleep(0.2 * (attempt + 1))
    raise AssertionError("the last try returns or raises")


def _count(submission: Submission, response: httpx.Response, now: float, tally: Tally) -> None:
    tally.sent += len(submission.markers)
    for marker, outcome in zip(submission.markers, _outcomes(submission, response), strict=True):
        if outcome in {"rejected", "conflict"}:
            tally.rejected += 1
        elif marker in tally.accepted_at:
            tally.duplicates += 1
        else:
            tally.accepted_at[marker] = now
        if outcome != submission.expected:
            said = f"{response.status_code} {response.text[:200]}"
            tally.surprises.append(f"event {marker} was {outcome} in place of {submission.expected}: {said}")


def _outcomes(submission: Submission, response: httpx.Response) -> list[str]:
    """`accepted`, `duplicate`, `rejected`, `conflict` or `failed` for each event of the request."""
    if response.is_success:
        answer = json.loads(response.content)
        return [result.get("result", "rejected") for result in answer.get("results", [answer])]
    return [_refusal(response)] * len(submission.markers)


def _refusal(response: httpx.Response) -> str:
    if not response.is_client_error or response.headers["content-type"] != "application/problem+json":
        return "failed"
    is_conflict = response.status_code == 422 and "identity-conflict" in response.json()["type"]
    return "conflict" if is_conflict else "rejected"
