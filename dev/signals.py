"""What SIGTERM and Ctrl-C do to a process that owns a stack."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Make SIGTERM unwind like Ctrl-C, where nobody else handles it; only the main thread may say so."""
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def wait_for_a_signal() -> NoReturn:
    """Wait until a signal's handler raises. (`signal.pause` would sleep through one that came just before it.)"""
    while True:
        time.sleep(0.2)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Drop Ctrl-C and SIGTERM, during an orderly end that must not be cut short."""
    if not _in_main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
