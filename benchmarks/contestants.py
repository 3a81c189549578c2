"""The six measured functions. A function has one worker process, and runs alone."""

import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Literal

from benchmarks.events import BATCH
from dev.process.child import Child, free_port, plain_environment
from dev.stack import Stack
from dev.stack.functions import FunctionProcess

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Started:
    """A running function."""

    port: int
    stop: Callable[[], None]
    """End the function in order: it writes the accepted events first."""


@dataclass(frozen=True)
class Contestant:
    """A function, its requests, and the effects to check."""

    name: str
    function: str
    feed: Literal["store", "publish", "batch"]
    collection: str | None
    """The collection of the acknowledged events; None for a function that stores no events."""
    ours: bool = True
    sends: bool = False
    """True for a function that sends to Kafka."""
    framework: tuple[tuple[str, str], ...] = ()
    """Environment of functions-framework, for a function outside `functions/`."""
    events_per_request: int = 1

    def with_threads(self, threads: int) -> "Contestant":
        """Return the same function with that many threads."""
        return replace(self, framework=(("THREADS", str(threads)),))

    def start(self, stack: Stack) -> Started:
        """Start the function beside the servers of the stack, and wait until it answers."""
        port, settings = free_port(), stack.function_environment(self.function)
        if self.ours:
            process = FunctionProcess(self.function, port, settings, logs=stack.logs)
            process.start()
            return Started(port, process.terminate)
        child = _framework_child(self.function, port, dict(self.framework) | dict(settings), stack.logs)
        child.start()
        return Started(port, child.terminate)


def _framework_child(function: str, port: int, settings: Mapping[str, str], logs: Path) -> Child:
    """Return a functions-framework process for a function of this package."""
    framework = {"FUNCTION_TARGET": function, "FUNCTION_SOURCE": "main.py", "HOST": "127.0.0.1", "PORT": str(port)}
    return Child(
        function,
        [sys.executable, "-m", "functions_framework"],
        log=logs / f"{function}.log",
        ready=lambda _: _answers(port),
        cwd=_HERE / function,
        env=plain_environment() | framework | {"WORKERS": "1"} | dict(settings),
    )


def _answers(port: int) -> bool:
    """Return True if an HTTP server answers. The framework answers this path with 404."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=2.0)) as connection:
        try:
            connection.request("GET", "/robots.txt")
            connection.getresponse()
        except (OSError, HTTPException):
            return False
    return True


_ASGI = (("FUNCTION_USE_ASGI", "true"),)

LIMIT = Contestant("limit", "limit", "store", None, ours=False, framework=_ASGI)
STORE = Contestant("store", "store", "store", "event_store")
NAIVE_STORE = Contestant("naive store", "naive_store", "store", "event_store", ours=False)
PUBLISH = Contestant("publish", "publish", "publish", "events", sends=True)
NAIVE_PUBLISH = Contestant("naive publish", "naive_publish", "publish", "events", ours=False, sends=True)
BATCHES = Contestant("publish batch", "publish", "batch", "events", sends=True, events_per_request=BATCH)
