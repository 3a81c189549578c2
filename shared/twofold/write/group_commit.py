"""Group commit: many waiting callers, one write. Knows no MongoDB.

While writes are under way, what arrives gathers; when one is done, all that gathered is written at once. So the group
grows by itself with the load, and a lone caller waits for nobody but for `wait_s`. More than one write may be under
way, so that callers are served while the database works on the group before.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from twofold.errors import Unavailable

Item = TypeVar("Item")


Result = TypeVar("Result")


class _Caller(NamedTuple, Generic[Item, Result]):
    items: Sequence[Item]
    future: asyncio.Future[Sequence[Result]]
    size: int


class GroupCommit(Generic[Item, Result]):
    """Gathers the items of concurrent callers into writes of about `max_items`.

    `write` takes a list of items and returns one result for each, in order, once they are durable; an exception that it
    raises goes to every caller in the group and behind it, and nobody is acknowledged. At most `capacity` items wait,
    and at most `max_writes` writes are under way. All that is held, waiting or being written, is at most
    `capacity_bytes` by `size_of`; but who comes when nothing is held is taken, however large.
    """

    def __init__(
        self,
        write: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int,
        wait_s: float,
        capacity: int,
        max_writes: int = 1,
        yield_threshold: int = 24,
        size_of: Callable[[Item], int] = lambda _: 0,
        capacity_bytes: int = 0,
    ) -> None:
        self._write = write
        self._max_items = max_items
        self._wait_s = wait_s
        self._capacity = capacity
        self._max_writes = max_writes
        self._yield_threshold = yield_threshold
        self._size_of = size_of
        self._capacity_bytes = capacity_bytes
        self._callers: deque[_Caller[Item, Result]] = deque()
        self._waiting = 0
        self._held_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._flushing = 0
        self._gathering = False
        self._closed = False

    async def submit(self, items: Sequence[Item]) -> Sequence[Result]:
        """Return the results of `items`, which stay together, after the write that holds them.

        Raises `Unavailable` when the queue is full or closed, with nothing queued, and what `write` raises.
        """
        if self._closed:
            raise Unavailable("shutting down")
        if self._waiting + len(items) > self._capacity:
            raise Unavailable("too many events are waiting to be written")
        size = sum(map(self._size_of, items))
        if self._held_bytes and self._held_bytes + size > self._capacity_bytes:
            raise Unavailable("too many bytes of events are waiting to be written")
        future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._callers.append(_Caller(items, future, size))
        self._waiting += len(items)
        self._held_bytes += size
        self._gather()
        return await future

    async def yield_to_pending_write(self) -> None:
        """Let a write that is due begin. Await it before the work of making items.

        The event loop takes all requests that have come in one go: without this, nothing would be written until the
        last of them is decoded, and then nothing decoded until all are written.
        """
        while self._gathering and self._waiting >= self._yield_threshold:  # noqa: ASYNC110 - a turn of the loop, no event
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Take nothing more, and return when everything that was taken is written and answered."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _gather(self) -> None:
        """See to it that those who wait are gathered: by one task at a time, if one may write."""
        if self._callers and not self._gathering and self._flushing < self._max_writes:
            self._gathering = True
            self._flushing += 1
            task = asyncio.create_task(self._flush())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _flush(self) -> None:
        if self._waiting < self._max_items:
            await asyncio.sleep(self._wait_s)
        self._gathering = False
        if self._callers:  # another write that failed may have taken them along
            group = self._next_group()
            self._gather()
            await self._write_group(group)
        self._flushing -= 1
        self._gather()

    def _next_group(self) -> list[_Caller[Item, Result]]:
        group = [self._callers.popleft()]
        number = len(group[0].items)
        while self._callers and number + len(self._callers[0].items) <= self._max_items:
            group.append(self._callers.popleft())
            number += len(group[-1].items)
        self._waiting -= number
        return group

    def _drained(self) -> list[_Caller[Item, Result]]:
        """Those who wait behind a write that failed: finding out for themselves would take its time-out once more."""
        waiting = list(self._callers)
        self._callers.clear()
        self._waiting = 0
        return waiting

    async def _write_group(self, group: list[_Caller[Item, Result]]) -> None:
        try:
            results = await self._write([item for caller in group for item in caller.items])
        except Exception as error:  # noqa: BLE001 - each caller gets it; a group without an answer would wait for ever
            group += self._drained()
            self._let_go(group)
            for caller in group:
                if not caller.future.done():
                    caller.future.set_exception(error)
            return
        self._let_go(group)
        position = 0
        for items, future, _ in group:
            if not future.done():  # a caller that gave up has cancelled its future
                future.set_result(results[position : position + len(items)])
            position += len(items)

    def _let_go(self, callers: Iterable[_Caller[Item, Result]]) -> None:
        self._held_bytes -= sum(caller.size for caller in callers)
