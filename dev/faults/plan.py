"""The plan of a run: its size, and the faults, moments and lengths that come from its seed alone. Pure."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

Range = tuple[float, float]
"""The least and the greatest value, in seconds."""


@dataclass(frozen=True)
class Pace:
    """The lengths of the parts of a run."""

    gap_s: Range
    """Between the starts of two faults."""
    down_s: Range
    """From a kill to the restart."""
    stop_s: Range
    """From SIGSTOP to SIGCONT."""
    back_off_s: float
    """The first back-off of relay. The longest outage of `store` takes two or three of them."""
    retention_s: float
    """The time of an event in `events`."""
    first_look_s: float
    relay_budget_s: float
    """A killed relay holds the lock for half a minute longer than this."""


@dataclass(frozen=True)
class FaultPlan:
    """The parameters of a run. `FULL` and `SHORT` lack the seed and the folder for logs."""

    events: int
    """The least number of acknowledged events."""
    faults: int
    seconds_a_fault: float
    """The approximate length of a fault, two at a time: the load lasts as long as the faults."""
    sure: int
    """The least number of faults of the kinds that damage the log, change settings or reach a bound."""
    pace: Pace
    seed: int = 0
    broker: str = "tansu"
    logs: Path | None = None


FULL = FaultPlan(
    events=20_000,
    faults=25,
    seconds_a_fault=5.0,
    sure=4,
    pace=Pace((1, 6), (0, 3), (10, 10), back_off_s=3, retention_s=30, first_look_s=2, relay_budget_s=5),
)
SHORT = FaultPlan(
    events=2_000,
    faults=9,
    seconds_a_fault=2.0,
    sure=2,
    pace=Pace((0, 0.5), (0, 0.5), (0.5, 2), back_off_s=1, retention_s=8, first_look_s=1, relay_budget_s=1),
)


@dataclass(frozen=True)
class PlannedFault:
    """A fault of the plan. `seed` decides its lengths and moments."""

    name: str
    gap_s: float
    """Since the start of the fault before."""
    seed: int


def draw_faults(
    seed: int, names: Sequence[str], count: int, pace: Pace, *, first: Sequence[str] = (), sure: int = 0
) -> Iterator[PlannedFault]:
    """Return `count` faults in random order: every kind comes once before a kind comes twice.

    `sure` of the faults, or more, are of the kinds `first`.
    """
    rng = random.Random(seed)
    chosen = rng.sample(first, min(sure, count, len(first)))
    rest = [name for name in names if name not in chosen]
    chosen += rng.sample(rest, min(len(rest), count - len(chosen)))
    while len(chosen) < count:
        chosen += rng.sample(names, min(len(names), count - len(chosen)))
    rng.shuffle(chosen)
    for name in chosen:
        yield PlannedFault(name, rng.uniform(*pace.gap_s), rng.getrandbits(32))
