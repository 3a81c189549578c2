"""The p99 of `publish` while Kafka is frozen or gone, beside its p99 with Kafka, in the same run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

from benchmarks.arena import Arena, During
from benchmarks.contestants import PUBLISH
from benchmarks.figures import Measurement
from dev.servers.broker import Broker
from dev.stack import Stack
from dev.stack.running import Steps

ROUNDS = 3
THERE = "there"
FROZEN = "frozen"
GONE = "gone"


def measure(arena: Arena, stack: Stack, seconds: float, say: Steps) -> dict[str, list[Measurement]]:
    """Measure three rounds of each state of Kafka. Raises `NotBelievable` as `Arena.run` does."""
    states: Mapping[str, During] = {
        THERE: nullcontext,
        FROZEN: lambda: _frozen(stack.broker),
        GONE: lambda: _gone(stack),
    }
    runs: dict[str, list[Measurement]] = {state: [] for state in states}
    for turn in range(1, ROUNDS + 1):
        for state, during in states.items():
            say(f"round {turn} of {ROUNDS}: publish with Kafka {state}")
            runs[state].append(arena.run(PUBLISH, seconds, during))
    return runs


@contextmanager
def _frozen(broker: Broker) -> Iterator[None]:
    broker.pause()
    try:
        yield
    finally:
        broker.resume()


@contextmanager
def _gone(stack: Stack) -> Iterator[None]:
    stack.broker.kill()
    try:
        yield
    finally:
        stack.restart_broker()
