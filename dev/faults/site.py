"""The site of the faults: a running stack, its load and its poison."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from pymongo.database import Database

from dev.database import Document
from dev.faults.plan import Pace
from dev.faults.poisoner import Poisoner
from dev.faults.publishers import BackgroundLoad
from dev.process.child import Child, StartFailed, wait_until
from dev.servers.broker import Broker
from dev.servers.mongod import ReplicaSet
from dev.stack import Stack
from dev.stack.functions import FunctionProcess

WITHIN_S = 60.0
"""The longest wait for any effect of a fault."""

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

    def process(self, name: str) -> Process:
        """Return the KafkaSource (`source`), the `broker`, or a function."""
        processes: dict[str, Process] = {"source": self.source, "broker": self.stack.broker, **self.stack.functions}
        return processes[name]


Inject = Callable[[Site, random.Random], None]
"""Does harm, and returns when it is mended. All lengths come from the random numbers."""


def await_effect(effect: Callable[[], bool], name: str, every: float = 0.05) -> None:
    """Wait until `effect` is true. Raises `StartFailed` after a minute."""
    if not wait_until(effect, within=WITHIN_S, every=every):
        raise StartFailed(f"faults: {name}: not within {WITHIN_S:g} s")
