"""The time from the start of a function to its first answer to the probe, beside a bare functions-framework."""

import time

from benchmarks.contestants import LIMIT
from dev.process.child import free_port
from dev.stack import Stack
from dev.stack.functions import FUNCTIONS, FunctionProcess
from dev.stack.running import Steps

BARE = "bare"
"""The limit: functions-framework and a function of three lines."""
ROUNDS = 5


def measure(stack: Stack, say: Steps) -> dict[str, list[float]]:
    """Return the seconds of the starts. A round starts every function once. Raises `StartFailed`."""
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
