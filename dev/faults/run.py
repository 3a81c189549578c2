"""One run: a stack, the load, the poison and the faults; then wait until it settles, read the servers, and judge."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from dev.faults.injector import Injector
from dev.faults.kinds import Site, kinds_for
from dev.faults.load import Load
from dev.faults.plan import FULL, SHORT, Pace, plan
from dev.faults.poison import Poisoner
from dev.faults.producer import Sent
from dev.faults.verdict import Evidence, Verdict, judge, marker_of
from dev.faults.watch import Inserted, Watcher
from dev.process.child import wait_until
from dev.stack import Options, Stack
from dev.stack.running import Steps

Document = dict[str, Any]

SETTLED_WITHIN_S = 180.0
DAY_S = 86_400


@dataclass(frozen=True)
class Form:
    """How large a run is by default, and how fast everything goes."""

    events: int
    faults: int
    pace: Pace
    seconds_a_fault: float
    """About what one takes, two at a time: the load is spread over all of them."""


FULL_FORM = Form(events=20_000, faults=25, pace=FULL, seconds_a_fault=5.0)
SHORT_FORM = Form(events=2_000, faults=9, pace=SHORT, seconds_a_fault=2.0)


@dataclass(frozen=True)
class Plan:
    """What a run shall be."""

    seed: int
    broker: str
    form: Form
    events: int
    """How many must be acknowledged, at least."""
    faults: int
    logs: Path


@dataclass(frozen=True)
class Report:
    """What a run found."""

    plan: Plan
    verdict: Verdict
    acknowledged: int
    accepted_conflicts: int
    events: int
    event_store: int
    retries: int
    expired: int
    poison_gone: int
    """Records that a broker lost with its log before they were kept; nobody may ever have seen them."""
    faults: Counter[str]
    run_s: float
    settle_s: float
    trouble: tuple[str, ...]
    """What else is off: it did not settle, nobody watched, or publish answered as it never should."""

    def complaints(self) -> list[str]:
        """Everything that is off."""
        return [*self.verdict.complaints(), *self.trouble]

    def as_json(self) -> dict[str, Any]:
        """The keys that `JSON=FILE` gets."""
        verdict = self.verdict
        return {
            "acknowledged": self.acknowledged,
            "accepted_conflicts": self.accepted_conflicts,
            "events": self.events,
            "expired": self.expired,
            "event_store": self.event_store,
            "lost": verdict.lost,
            "doubled": verdict.doubled,
            "differing": verdict.differing,
            "unexpected": verdict.unexpected,
            "poison_sent": verdict.poison_sent,
            "poison_kept": verdict.poison_kept,
            "poison_gone": self.poison_gone,
            "redriven_twice": verdict.redriven_twice,
            "overclaimed": verdict.overclaimed,
            "checkpoint_ok": verdict.checkpoint_ok,
            "retries": self.retries,
            "faults": dict(sorted(self.faults.items())),
            "run_s": round(self.run_s, 1),
            "settle_s": round(self.settle_s, 1),
            "seed": self.plan.seed,
            "broker": self.plan.broker,
            "complaints": self.complaints(),
        }


def options_of(wanted: Plan) -> Options:
    """The stack, with everything that takes minutes in a cluster made to take seconds."""
    pace = wanted.form.pace
    return Options(
        members=3,
        broker=wanted.broker,
        set_parameters={"ttlMonitorSleepSecs": 1},
        settings={
            "RETENTION_DAYS": f"{pace.retention_s / DAY_S:.9f}",
            "RELAY_FIRST_LOOK_S": str(pace.first_look_s),
            "RELAY_BACK_OFF_S": str(pace.back_off_s),
            "RELAY_BUDGET_S": str(pace.relay_budget_s),
            "RELAY_CLOCK_SKEW_S": "1",  # one machine's clock, and marks have its whole seconds
            "RELAY_BATCH": "200",
        },
        source_arguments=("--session-timeout-ms", "3000", "--commit-every", "2"),
        relay_every_s=1.0,
        logs=wanted.logs,
    )


def run(wanted: Plan, on_step: Steps) -> Report:
    """Do it all. Raises `StartFailed` if a part could not be brought back."""
    with Stack(options_of(wanted), on_step=on_step) as stack, _majority(stack) as database:
        return _Run(wanted, stack, database, on_step).report()


@contextmanager
def _majority(stack: Stack) -> Iterator[Database[Document]]:
    """The servers, read directly: what a majority has."""
    codec: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD, tz_aware=True)
    with MongoClient[Document](stack.mongodb_uri, socketTimeoutMS=10_000, serverSelectionTimeoutMS=10_000) as client:
        yield client.get_database(stack.database, codec_options=codec, read_concern=ReadConcern("majority"))


class _Run:
    """A run's parts. Each has random numbers of its own, all from the one seed."""

    def __init__(self, wanted: Plan, stack: Stack, database: Database[Document], on_step: Steps) -> None:
        self._wanted = wanted
        self._stack = stack
        self._database = database
        self._on_step = on_step
        seeds = random.Random(wanted.seed)
        self._watcher = Watcher(database.events)
        self._load = Load(
            stack.publish_url,
            run=f"{wanted.seed:x}",
            seed=seeds.getrandbits(32),
            rate=wanted.events / (wanted.faults * wanted.form.seconds_a_fault),
            expired=self._watcher.recently_expired,
        )
        self._poisoner = Poisoner(
            bootstrap=stack.kafka,
            topic=stack.topic,
            seed=seeds.getrandbits(32),
            every_s=0.3,
            in_log=self._in_log,
            kept=self._kept,
        )
        self._plan_seed = seeds.getrandbits(32)

    def report(self) -> Report:
        """Break things under load, let them settle, and judge."""
        began = time.monotonic()
        faults = self._break()
        broken = time.monotonic()
        self._on_step("waiting until it settles")
        settled = wait_until(self._is_settled, within=SETTLED_WITHIN_S, every=0.5)
        settle_s = time.monotonic() - broken
        self._on_step("reading the servers, and judging")
        evidence = self._evidence()
        self._keep(evidence)
        ledger, poison = self._load.ledger, self._poisoner.sendings
        return Report(
            plan=self._wanted,
            verdict=judge(evidence),
            acknowledged=len(evidence.acknowledged),
            accepted_conflicts=len(evidence.late),
            events=len(evidence.events),
            event_store=len(evidence.event_store),
            retries=ledger.retries,
            expired=len(self._watcher.expired),
            poison_gone=len(poison.gone & poison.acknowledged - self._kept()),
            faults=faults,
            run_s=broken - began,
            settle_s=settle_s,
            trouble=self._trouble(settled),
        )

    def _break(self) -> Counter[str]:
        if self._stack.mongo is None or self._stack.source is None:
            raise LookupError("faults need servers of our own")
        wanted = self._wanted
        pace = wanted.form.pace
        site = Site(
            self._stack, self._stack.mongo, self._stack.source, self._load, self._poisoner, self._database, pace
        )
        kinds = kinds_for(wanted.broker)
        injector = Injector(kinds, site, self._on_step)
        self._load.start()
        self._poisoner.start()
        try:
            injector.inject(plan(self._plan_seed, list(kinds), wanted.faults, pace))
            self._on_step(f"{wanted.faults} faults are over; {self._acknowledged()} events acknowledged")
            self._load.hurry(on=True)
            wait_until(lambda: self._acknowledged() >= wanted.events or not self._load.alive, within=SETTLED_WITHIN_S)
        finally:
            self._poisoner.end()
            self._load.end()
        return injector.done

    def _acknowledged(self) -> int:
        return len(self._load.ledger.acknowledged)

    def _is_settled(self) -> bool:
        """Nothing is pending, every poison is kept, relay has stated it, and the TTL monitor has taken its first."""
        poison = self._poisoner.sendings
        newest = max(change.seq for change in self._watcher.changes.copy() if isinstance(change, Inserted))
        try:
            last = next(self._database.checkpoints.find({"kind": "checkpoint"}).sort("seq", -1).limit(1), None)
            return (
                last is not None
                and last["pending"] == 0
                and last["low_watermark"] is not None
                and last["low_watermark"] > newest
                and poison.acknowledged - poison.gone <= self._kept()
                and bool(self._watcher.expired)
            )
        except PyMongoError:
            return False

    def _in_log(self, rng: random.Random) -> Sent | None:
        """An event that is in the log, so that what is forged under its id can't come first."""
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
        """The markers among the dead letters; asked again while MongoDB is away."""
        while True:
            try:
                letters = self._database.dead_letters.find({}, {"headers": 1})
                return {marker for letter in letters if (marker := marker_of(letter))}
            except PyMongoError:
                time.sleep(0.2)

    def _evidence(self) -> Evidence:
        """The documents first, then what happened: whatever left `events` before that was seen to leave."""
        ledger, database = self._load.ledger, self._database
        events = list(database.events.find())
        self._watcher.catch_up()
        self._watcher.close()
        return Evidence(
            acknowledged=ledger.acknowledged,
            late=ledger.late,
            made=ledger.made,
            events=events,
            event_store=list(database.event_store.find()),
            dead_letters=list(database.dead_letters.find()),
            checkpoints=list(database.checkpoints.find().sort("seq", 1)),
            changes=self._watcher.changes,
            poison=self._poisoner.sendings,
        )

    def _keep(self, evidence: Evidence) -> None:
        """Beside the logs, for whoever must find out what happened; the servers end with the run."""
        for name in ("events", "event_store", "dead_letters", "checkpoints", "changes"):
            with (self._stack.logs / f"{name}.ndjson").open("w") as lines:
                lines.writelines(f"{json.dumps(item, default=_readable)}\n" for item in getattr(evidence, name))

    def _trouble(self, settled: bool) -> tuple[str, ...]:
        trouble = [] if settled else [f"it did not settle within {SETTLED_WITHIN_S:g} s"]
        if self._acknowledged() < self._wanted.events:
            trouble.append(f"only {self._acknowledged()} of {self._wanted.events} events were acknowledged")
        if self._watcher.failure:
            trouble.append(f"the watch of `events` has a gap: {self._watcher.failure}")
        surprises = self._load.ledger.surprises
        return (*trouble, *(f"publish surprised: {surprise}" for surprise in surprises[:5]))


def _readable(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {"what": type(value).__name__, **asdict(value)}
    return value.hex() if isinstance(value, bytes) else str(value)
