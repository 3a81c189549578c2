"""Handle SIGTERM and Ctrl-C in a process that owns a stack."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


@contextmanager
def _handled_by(handlers: Mapping[signal.Signals, Callable[..., Any] | signal.Handlers]) -> Iterator[None]:
    """Set the handlers for the time of the block. Only the main thread may: in another thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Let SIGTERM raise `SystemExit`, and so unwind like Ctrl-C, unless SIGTERM has a handler already."""
    unhandled = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with _handled_by({signal.SIGTERM: _exit} if unhandled else {}):
        yield


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM during an orderly end."""
    with _handled_by({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}):
        yield


def wait_for_a_signal() -> NoReturn:
    """Wait until a signal's handler raises. `signal.pause` would miss a signal that came just before the call."""
    while True:
        time.sleep(0.2)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
