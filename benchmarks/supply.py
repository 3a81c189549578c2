"""The supply of ready-made events: enough for the machine that runs the benchmark.

A run sends each event once, so it needs as many events as its function stores. The fastest function of the line-up
first runs for two seconds. Its rate, with a margin, is the number of events that are made for each second. If a run
needs more after all, the benchmark makes twice as many, and begins again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.arena import WARM_UP_S, Arena, RanOut
from benchmarks.contestants import BATCHES
from benchmarks.events import Feeds
from benchmarks.load import LoadGenerator
from dev.stack import Stack
from dev.stack.running import Steps

FIRST_PER_S = 10_000
MARGIN = 1.5
PROBE_S = 2.0
_MOST_DOUBLINGS = 6

Figures = TypeVar("Figures")


def with_enough(per_s: int, attempt: Callable[[int], Figures], say: Steps) -> Figures:
    """Return the result of `attempt(per_s)`. While it raises `RanOut`, try again with twice as many events a second."""
    for _ in range(_MOST_DOUBLINGS):
        try:
            return attempt(per_s)
        except RanOut:
            say(f"{per_s:,} events a second did not last: making twice as many")
            per_s *= 2
    return attempt(per_s)


def needed_per_s(stack: Stack, folder: Path, generator: LoadGenerator, say: Steps) -> int:
    """Return the number of events to make for each second of a run on this machine. Raises `NotBelievable`."""

    def probe(per_s: int) -> float:
        arena = Arena(stack, make(folder, per_s, PROBE_S), generator)
        return arena.run(BATCHES, PROBE_S).rate

    say("measuring how many events this machine needs")
    return round(with_enough(FIRST_PER_S, probe, say) * MARGIN)


def make(folder: Path, per_s: int, seconds: float) -> Feeds:
    """Make the events of a run of `seconds` and of its warm-up."""
    return Feeds.write(folder, round(per_s * seconds), round(per_s * WARM_UP_S))
