"""How long each function takes from its start until it answers its probe, beside a bare functions-framework."""

import time
from collections.abc import Callable

from benchmarks.contestants import LIMIT
from dev.process.child import free_port
from dev.stack import Stack
from dev.stack.functions import FUNCTIONS, FunctionProcess

BARE = "bare"
"""The limit: functions-framework and a function of three lines, which answers anything."""
ROUNDS = 5


def measure(stack: Stack, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of each start, all functions once a round, on the servers of `stack`. Raises `StartFailed`."""
    seconds: dict[str, list[float]] = {name: [] for name in (BARE, *FUNCTIONS)}
    for turn in range(1, ROUNDS + 1):
        for name, taken in seconds.items():
            say(f"start {turn} of {ROUNDS}: {name}")
            taken.append(_start(name, stack))
    return seconds


def _start(name: str, stack: Stack) -> float:
    began = time.perf_counter()
    if name == BARE:
        stop = LIMIT.start(stack).stop
    else:
        function = FunctionProcess(name, free_port(), stack.function_environment(name), logs=stack.logs)
        function.start()
        stop = function.terminate
    took = time.perf_counter() - began
    stop()
    return took
