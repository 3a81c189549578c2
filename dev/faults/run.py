"""One run: load, poison and faults on a stack. At the end: wait until no event is pending, then judge the data."""

import json
import random
import time
from collections import Counter
from dataclasses import asdict, is_dataclass
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError

from dev.comparison import SentEvent
from dev.database import ChangeFollower, Document, majority
from dev.faults.changes import PIPELINE, Change, Deleted, Inserted, change_of
from dev.faults.injector import Injector
from dev.faults.kinds import SURE, kinds_for
from dev.faults.plan import FaultPlan, draw_faults
from dev.faults.poisoner import Poisoner
from dev.faults.publishers import BackgroundLoad
from dev.faults.readers import FeedReader
from dev.faults.site import Site, options_of
from dev.faults.verdict import Evidence, judge, marker_of
from dev.process.child import wait_until
from dev.stack import Stack
from dev.stack.running import Steps

WITHIN_S = 180.0
FEED_WITHIN_S = 60.0
_RECENT = 3000
"""Changes among which the load looks for expired events."""


def run(wanted: FaultPlan, on_step: Steps) -> dict[str, Any]:
    """Start a stack, do the whole run, and return the figures for `JSON=FILE`; without failures `complaints` is empty.

    Raises `StartFailed` if a part did not come back.
    """
    with Stack(options_of(wanted), on_step=on_step) as stack, majority(stack.mongodb_uri, stack.database) as database:
        return _FaultRun(wanted, stack, database, on_step).figures()


class _FaultRun:
    """The parts of a run. Each part has its own random numbers, and one seed decides them."""

    def __init__(self, wanted: FaultPlan, stack: Stack, database: Database[Document], on_step: Steps) -> None:
        self._wanted = wanted
        self._stack = stack
        self._database = database
        self._on_step = on_step
        seeds = random.Random(wanted.seed)
        self._changes: list[Change] = []
        self._log_changes: list[Change] = []
        self._followers = [_follow(database.events, self._changes), _follow(database.event_store, self._log_changes)]
        feed = f"{stack.functions['audit'].url}/feed"
        self._readers = [FeedReader("near", feed, 1000, 0.0), FeedReader("slow", feed, 50, 1.0)]
        self._outages: list[Counter[str]] = []
        self._load = BackgroundLoad(
            stack.publish_url,
            run=f"faults-{wanted.seed:x}",
            seed=seeds.getrandbits(32),
            rate=wanted.events / (wanted.faults * wanted.seconds_a_fault),
            expired=lambda: [change.event_id for change in self._changes[-_RECENT:] if isinstance(change, Deleted)],
        )
        self._poisoner = Poisoner(stack, seeds.getrandbits(32), self._in_log, self._kept)
        self._plan_seed = seeds.getrandbits(32)

    def figures(self) -> dict[str, Any]:
        """Break parts under load, wait until no event is pending, and judge."""
        began = time.monotonic()
        faults = self._break()
        broken = time.monotonic()
        self._on_step("waiting until no event is pending")
        complete = wait_until(self._is_complete, within=WITHIN_S, every=0.5)
        recovery_s = time.monotonic() - broken
        self._on_step("waiting until the readers of the feed have every event")
        read = self._finish_readers()
        self._on_step("reading the servers, and judging")
        evidence = self._evidence()
        self._keep(evidence)
        verdict, poison = judge(evidence), evidence.poison
        return {
            "acknowledged": len(evidence.acknowledged),
            "accepted_conflicts": len(evidence.late),
            "events": len(evidence.events),
            "expired": sum(isinstance(change, Deleted) for change in self._changes),
            "event_store": len(evidence.event_store),
            **verdict.figures(),
            "feed_begun_again": sum(reader.begun_again for reader in self._readers),
            "poison_gone": len(poison.gone & poison.acknowledged - self._kept()),
            "retries": self._load.producer.retries,
            "faults": dict(sorted(faults.items())),
            "run_s": round(broken - began, 1),
            "recovery_s": round(recovery_s, 1),
            "seed": self._wanted.seed,
            "broker": self._wanted.broker,
            "complaints": verdict.complaints() + self._trouble(complete=complete, read=read),
        }

    def _break(self) -> Counter[str]:
        stack, wanted, load = self._stack, self._wanted, self._load
        if stack.mongo is None or stack.source is None:
            raise LookupError("faults need a MongoDB and a KafkaSource that this process started")
        pace = wanted.pace
        site = Site(
            stack, stack.mongo, stack.source, load, self._poisoner, self._database, pace, self._readers, self._outages
        )
        kinds = kinds_for(wanted.broker)
        injector = Injector(kinds, site, self._on_step)
        load.start()
        for reader in self._readers:
            reader.start()
        self._poisoner.start()
        try:
            plan = draw_faults(self._plan_seed, list(kinds), wanted.faults, pace, first=SURE, sure=wanted.sure)
            injector.inject(plan)
            self._on_step(f"{wanted.faults} faults are over; {self._acknowledged()} events are acknowledged")
            load.hurry(on=True)
            wait_until(lambda: self._acknowledged() >= wanted.events or not load.thread.is_alive(), within=WITHIN_S)
        finally:
            self._poisoner.end()
            load.end()
        return injector.done

    def _acknowledged(self) -> int:
        return len(self._load.ledger.acknowledged)

    def _is_complete(self) -> bool:
        """Check the last checkpoint, the poison among the dead letters, and the first expired event."""
        poison = self._poisoner.sent
        changes = self._changes.copy()
        newest = max(change.seq for change in changes if isinstance(change, Inserted))
        try:
            last = next(self._database.checkpoints.find({"kind": "checkpoint"}).sort("seq", -1).limit(1), None)
            return (
                last is not None
                and last["pending"] == 0
                and last["low_watermark"] is not None
                and last["low_watermark"] > newest
                and poison.acknowledged - poison.gone <= self._kept()
                and any(isinstance(change, Deleted) for change in changes)
            )
        except PyMongoError:
            return False

    def _finish_readers(self) -> bool:
        """Wait until each reader has read beyond the newest event of the log. False: not within a minute."""
        newest = self._database.event_store.find_one(sort=[("seq", -1)])
        for reader in self._readers:
            reader.hurry()
        done = wait_until(
            lambda: newest is not None and all(r.read_to > newest["seq"].as_datetime() for r in self._readers),
            within=FEED_WITHIN_S,
        )
        for reader in self._readers:
            reader.end()
        return done

    def _in_log(self, rng: random.Random) -> SentEvent | None:
        """Pick an event that is in `event_store`: a forged event under its id must come second.

        An event at a bound has no room for a marker.
        """
        acknowledged = list(self._load.ledger.acknowledged.values())
        if not acknowledged:
            return None
        sent = rng.choice(acknowledged)
        if sent.event_id in self._load.ledger.bounds:
            return None
        try:
            there = self._database.event_store.find_one({"_id": sent.event_id}, {"_id": 1})
        except PyMongoError:
            return None
        return sent if there else None

    def _kept(self) -> set[str]:
        """Return the markers of the dead letters. Try again while MongoDB is unavailable."""
        while True:
            try:
                dead_letters = self._database.dead_letters.find({}, {"headers": 1})
                return {marker for kept in dead_letters if (marker := marker_of(kept))}
            except PyMongoError:
                time.sleep(0.2)

    def _evidence(self) -> Evidence:
        """Read `events` before the last changes, so that the changes explain every missing document."""
        ledger, database = self._load.ledger, self._database
        events, event_store = list(database.events.find()), list(database.event_store.find())
        for follower in self._followers:
            follower.catch_up()
            follower.close()
        return Evidence(
            acknowledged=ledger.acknowledged,
            late=ledger.late,
            made=ledger.made,
            events=events,
            event_store=event_store,
            dead_letters=list(database.dead_letters.find()),
            checkpoints=list(database.checkpoints.find().sort("seq", 1)),
            changes=self._changes,
            log_changes=self._log_changes,
            poison=self._poisoner.sent,
            feeds={reader.name: reader.got for reader in self._readers},
            outages=self._outages,
        )

    def _keep(self, evidence: Evidence) -> None:
        """Write the evidence beside the logs, because the servers end with the run."""
        for name in ("events", "event_store", "dead_letters", "checkpoints", "changes", "log_changes"):
            with (self._stack.logs / f"{name}.ndjson").open("w") as lines:
                lines.writelines(f"{json.dumps(item, default=_readable)}\n" for item in getattr(evidence, name))

    def _trouble(self, *, complete: bool, read: bool) -> list[str]:
        trouble = [] if complete else [f"events or poison were still missing {WITHIN_S:g} s after the faults"]
        if self._acknowledged() < self._wanted.events:
            trouble.append(f"only {self._acknowledged()} of {self._wanted.events} events were acknowledged")
        if not read:
            trouble.append(f"a reader of the feed was not at the end {FEED_WITHIN_S:g} s later")
        gaps = [follower.failure for follower in self._followers if follower.failure]
        trouble += [f"the changes of a collection have a gap: {gap}" for gap in gaps]
        trouble += [f"feed: {failure}" for reader in self._readers for failure in reader.failures[:5]]
        return trouble + [f"publish: {surprise}" for surprise in self._load.ledger.surprises[:5]]


def _follow(collection: Collection[Document], notes: list[Change]) -> ChangeFollower:
    return ChangeFollower(collection, PIPELINE, lambda change: notes.append(change_of(change)))


def _readable(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {"what": type(value).__name__, **asdict(value)}
    return value.hex() if isinstance(value, bytes) else str(value)
