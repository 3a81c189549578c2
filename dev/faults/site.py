"""The site of the faults: a running stack, its load and its poison."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pymongo.database import Database

from dev.database import Document
from dev.faults.plan import FaultPlan, Pace
from dev.faults.poisoner import Poisoner
from dev.faults.publishers import BackgroundLoad
from dev.faults.readers import FeedReader
from dev.process.child import Child, StartFailed, plain_environment, wait_until
from dev.servers.broker import Broker
from dev.servers.mongod import ReplicaSet
from dev.stack import Options, Stack
from dev.stack.functions import FunctionProcess

WITHIN_S = 60.0
"""The longest wait for any effect of a fault."""

DAY_S = 86_400

Process = Child | Broker | FunctionProcess


@dataclass(frozen=True)
class Site:
    """The parts of a run that faults act on."""

    stack: Stack
    mongo: ReplicaSet
    source: Child
    load: BackgroundLoad
    poisoner: Poisoner
    database: Database[Document]
    pace: Pace
    readers: Sequence[FeedReader]
    outages: list[Counter[str]]
    """The number of new records for an event in the topic, in an outage of `store`."""

    def process(self, name: str) -> Process:
        """Return the KafkaSource (`source`), the `broker`, or a function."""
        processes: dict[str, Process] = {"source": self.source, "broker": self.stack.broker, **self.stack.functions}
        return processes[name]

    def operator(self, *arguments: str, **settings: str) -> "subprocess.Popen[bytes]":
        """Start the command `twofold`, with some settings that differ from those of the functions."""
        with (self.stack.logs / "operator.log").open("ab") as log:
            return subprocess.Popen(
                [Path(sys.executable).with_name("twofold"), *arguments],
                env=plain_environment() | self.stack.environment | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


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


Inject = Callable[[Site, random.Random], None]
"""Does harm, and returns when it is mended. All lengths come from the random numbers."""


def await_effect(effect: Callable[[], bool], name: str, every: float = 0.05) -> None:
    """Wait until `effect` is true. Raises `StartFailed` after a minute."""
    if not wait_until(effect, within=WITHIN_S, every=every):
        raise StartFailed(f"faults: {name}: not within {WITHIN_S:g} s")
