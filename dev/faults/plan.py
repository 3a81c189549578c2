"""Which faults, when and how long: from the seed alone. Pure."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How long things last, in seconds: (least, most)."""

    gap_s: tuple[float, float]
    """Between the starts of two faults."""
    down_s: tuple[float, float]
    """From a kill to the restart."""
    stop_s: tuple[float, float]
    """From SIGSTOP to SIGCONT."""
    back_off_s: float
    """The relay's first back-off: `store` is away for two or three of them."""
    retention_s: float
    """How long an event stays in `events`."""
    first_look_s: float
    relay_budget_s: float
    """A relay that died holds the lock for half a minute longer than this."""


FULL = Pace(
    gap_s=(1, 6), down_s=(0, 3), stop_s=(10, 10), back_off_s=3, retention_s=15, first_look_s=2, relay_budget_s=5
)
SHORT = Pace(
    gap_s=(0, 0.5), down_s=(0, 0.5), stop_s=(0.5, 2), back_off_s=1, retention_s=4, first_look_s=1, relay_budget_s=1
)


@dataclass(frozen=True)
class Planned:
    """One fault to come."""

    name: str
    gap_s: float
    """Since the start of the one before."""
    seed: int
    """Of its own lengths and moments."""


def plan(seed: int, names: Sequence[str], count: int, pace: Pace) -> Iterator[Planned]:
    """`count` faults: each kind once before any comes twice, in random order."""
    rng = random.Random(seed)
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += rng.sample(names, min(len(names), count - len(chosen)))
    rng.shuffle(chosen)
    for name in chosen:
        yield Planned(name, rng.uniform(*pace.gap_s), rng.getrandbits(32))
