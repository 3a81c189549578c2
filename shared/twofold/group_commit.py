"""Group commit: many waiting callers, one write. Knows no MongoDB.

While one write is under way, what arrives gathers; when it is done, all that gathered is written at once. So the group
grows by itself with the load, and a lone caller waits for nobody but for `wait_s`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from twofold.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Gathers the items of concurrent callers into writes of about `max_items`.

    `write` takes a list of items and returns one result for each, in order, once they are durable; an exception that it
    raises goes to every caller in the group, and nobody is acknowledged. At most `capacity` items wait.
    """

    def __init__(
        self,
        write: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int,
        wait_s: float,
        capacity: int,
    ) -> None:
        self._write = write
        self._max_items = max_items
        self._wait_s = wait_s
        self._capacity = capacity
        self._callers: deque[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]] = deque()
        self._waiting = 0
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, items: Sequence[Item]) -> Sequence[Result]:
        """Return the results of `items`, which stay together, after the write that holds them.

        Raises `Unavailable` when the queue is full or closed, with nothing queued, and what `write` raises.
        """
        if self._closed:
            raise Unavailable("shutting down")
        if self._waiting + len(items) > self._capacity:
            raise Unavailable("too many events are waiting to be written")
        future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._callers.append((items, future))
        self._waiting += len(items)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await future

    async def close(self) -> None:
        """Take nothing more, and return when everything that was taken is written and answered."""
        self._closed = True
        if self._flushing is not None:
            await self._flushing

    async def _flush(self) -> None:
        while self._callers:
            if self._waiting < self._max_items:
                await asyncio.sleep(self._wait_s)
            await self._write_group(self._next_group())
        self._flushing = None

    def _next_group(self) -> list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]:
        group = [self._callers.popleft()]
        size = len(group[0][0])
        while self._callers and size + len(self._callers[0][0]) <= self._max_items:
            group.append(self._callers.popleft())
            size += len(group[-1][0])
        self._waiting -= size
        return group

    async def _write_group(self, group: list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]) -> None:
        try:
            results = await self._write([item for items, _ in group for item in items])
        except Exception as error:  # noqa: BLE001 - each caller gets it; a group without an answer would wait for ever
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        position = 0
        for items, future in group:
            if not future.done():  # a caller that gave up has cancelled its future
                future.set_result(results[position : position + len(items)])
            position += len(items)
