"""Decoding of large requests outside of the event loop.

The event loop answers every other request, so decoding must not hold it for long. The time of decoding grows with the
number of values in the JSON text, and not with its bytes: 4 MiB of text take 15 ms, and 4 MiB of nested lists take 4 s.
So the structural characters are counted first, which takes a millisecond for a megabyte. A costly body is decoded in a
thread. There is one thread, so at most one costly body has its objects in memory.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

CHEAP_BYTES = 32 * 1024
"""A smaller body is always decoded in the event loop."""
CHEAP_VALUES = 20_000
"""The most structural characters for the event loop: they take at most 50 ms."""
CHEAP_LARGE_BYTES = 1024 * 1024
"""A larger body is never decoded in the event loop."""

Value = TypeVar("Value")


def is_costly(body: bytes) -> bool:
    """Return True if decoding `body` could block the event loop for more than 50 ms."""
    size = len(body)
    if size <= CHEAP_BYTES:
        return False
    return size > CHEAP_LARGE_BYTES or body.count(b"[") + body.count(b"{") + body.count(b",") > CHEAP_VALUES


async def in_decoding_thread(work: Callable[[], Value]) -> Value:
    """Return the result of `work`, done in the one thread for costly bodies, with the caller's context."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_thread(), partial(context.run, work))


@cache
def _thread() -> ThreadPoolExecutor:
    """Return the thread, made at its first use: so a process has it after the fork."""
    return ThreadPoolExecutor(1, "decoding")
