"""One run: load, poison and faults on a stack. At the end: wait until no event is pending, then judge the data."""

import json
import random
import time
from collections import Counter
from dataclasses import asdict, is_dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import PyMongoError

from dev.comparison import SentEvent
from dev.database import ChangeFollower, Document, majority
from dev.faults.changes import PIPELINE, Change, Deleted, Inserted, change_of
from dev.faults.injector import Injector
from dev.faults.kinds import kinds_for
from dev.faults.plan import FaultPlan, draw_faults
from dev.faults.poisoner import Poisoner
from dev.faults.publishers import BackgroundLoad
from dev.faults.site import Site
from dev.faults.verdict import Evidence, judge, marker_of
from dev.process.child import wait_until
from dev.stack import Options, Stack
from dev.stack.running import Steps

WITHIN_S = 180.0
DAY_S = 86_400
_RECENT = 3000
"""Changes among which the load looks for expired events."""


def options_of(wanted: FaultPlan) -> Options:
    """Return a stack in which relay, retention and redelivery take seconds, not minutes as in a cluster."""
    pace = wanted.pace
    return Options(
        members=3,
        broker=wanted.broker,
        set_parameters={"ttlMonitorSleepSecs": 1},
        settings={
            "RETENTION_DAYS": f"{pace.retention_s / DAY_S:.9f}",
            "RELAY_FIRST_LOOK_S": str(pace.first_look_s),
            "RELAY_BACK_OFF_S": str(pace.back_off_s),
            "RELAY_BUDGET_S": str(pace.relay_budget_s),
            "RELAY_CLOCK_SKEW_S": "1",  # one machine has one clock, and outbox entries have its whole seconds
            "RELAY_BATCH": "200",
        },
        source_arguments=("--session-timeout-ms", "3000", "--commit-every", "2"),
        relay_every_s=1.0,
        logs=wanted.logs,
    )


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
        self._follower = ChangeFollower(
            database.events, PIPELINE, lambda change: self._changes.append(change_of(change))
        )
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
            "poison_gone": len(poison.gone & poison.acknowledged - self._kept()),
            "retries": self._load.producer.retries,
            "faults": dict(sorted(faults.items())),
            "run_s": round(broken - began, 1),
            "recovery_s": round(recovery_s, 1),
            "seed": self._wanted.seed,
            "broker": self._wanted.broker,
            "complaints": verdict.complaints() + self._trouble(complete=complete),
        }

    def _break(self) -> Counter[str]:
        stack, wanted, load = self._stack, self._wanted, self._load
        if stack.mongo is None or stack.source is None:
            raise LookupError("faults need a MongoDB and a KafkaSource that this process started")
        pace = wanted.pace
        site = Site(stack, stack.mongo, stack.source, load, self._poisoner, self._database, pace)
        kinds = kinds_for(wanted.broker)
        injector = Injector(kinds, site, self._on_step)
        load.start()
        self._poisoner.start()
        try:
            injector.inject(draw_faults(self._plan_seed, list(kinds), wanted.faults, pace))
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

    def _in_log(self, rng: random.Random) -> SentEvent | None:
        """Pick an event that is in `event_store`: a forged event under its id must come second."""
        acknowledged = list(self._load.ledger.acknowledged.values())
        if not acknowledged:
            return None
        sent = rng.choice(acknowledged)
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
        events = list(database.events.find())
        self._follower.catch_up()
        self._follower.close()
        return Evidence(
            acknowledged=ledger.acknowledged,
            late=ledger.late,
            made=ledger.made,
            events=events,
            event_store=list(database.event_store.find()),
            dead_letters=list(database.dead_letters.find()),
            checkpoints=list(database.checkpoints.find().sort("seq", 1)),
            changes=self._changes,
            poison=self._poisoner.sent,
        )

    def _keep(self, evidence: Evidence) -> None:
        """Write the evidence beside the logs, because the servers end with the run."""
        for name in ("events", "event_store", "dead_letters", "checkpoints", "changes"):
            with (self._stack.logs / f"{name}.ndjson").open("w") as lines:
                lines.writelines(f"{json.dumps(item, default=_readable)}\n" for item in getattr(evidence, name))

    def _trouble(self, *, complete: bool) -> list[str]:
        trouble = [] if complete else [f"events or poison were still missing {WITHIN_S:g} s after the faults"]
        if self._acknowledged() < self._wanted.events:
            trouble.append(f"only {self._acknowledged()} of {self._wanted.events} events were acknowledged")
        if self._follower.failure:
            trouble.append(f"the changes of `events` have a gap: {self._follower.failure}")
        return trouble + [f"publish: {surprise}" for surprise in self._load.ledger.surprises[:5]]


def _readable(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {"what": type(value).__name__, **asdict(value)}
    return value.hex() if isinstance(value, bytes) else str(value)
