"""Group commit: one write for many waiting callers. It knows no MongoDB.

The model has three places:

    submit -> queue of callers -> group of at most `max_items` -> write -> results to the callers

1. A caller puts its items into the queue and waits. A full queue refuses the caller at once with `Unavailable`.
2. If a write may start, a task begins to gather. It waits `wait_s`, unless `max_items` are there already. Then it takes
   the group from the front of the queue. Only one task gathers at a time.
3. At most `max_writes` writes are under way. While they run, new callers wait in the queue and form the next group. So
   a group grows by itself with the load, and under low load a caller only waits `wait_s`.
4. A write returns one result for every item, or raises. An error goes to the callers of the group and to the callers
   in the queue behind the group: their own write would only wait for the same time-out again.

The items of a caller stay together. A caller that is cancelled leaves its items in the group: they are written anyway.
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
    """Writes the items of concurrent callers in groups.

    `write` gets the items of a group, and returns their results in order when the items are durable. At most `capacity`
    items wait. The items in the queue and in writes have at most `capacity_bytes` together, by `size_of`. A caller is
    accepted with more bytes if it is alone.
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
        """Return the results of `items`, in order, after their write.

        Raises `Unavailable`, with nothing queued, when the queue is full or closed. Raises the error of `write`.
        """
        if self._closed:
            raise Unavailable("the function is shutting down: send the request again")
        if self._waiting + len(items) > self._capacity:
            raise Unavailable("too many events wait for MongoDB: send the request again later")
        size = sum(map(self._size_of, items))
        if self._held_bytes and self._held_bytes + size > self._capacity_bytes:
            raise Unavailable("too many bytes of events wait for MongoDB: send the request again later")
        future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._callers.append(_Caller(items, future, size))
        self._waiting += len(items)
        self._held_bytes += size
        self._gather()
        return await future

    async def yield_to_pending_write(self) -> None:
        """Let a due write begin. Await it before decoding a request.

        The event loop decodes the waiting requests in one go. Without this pause, no write begins before the last
        request is decoded, and then no request is decoded during the writes.
        """
        while self._gathering and self._waiting >= self._yield_threshold:  # noqa: ASYNC110 - one turn of the loop, not a wait
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Refuse new callers, and return when the accepted callers have their results."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _gather(self) -> None:
        """Start a task that gathers a group, if callers wait, no task gathers, and a write may start."""
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
        if self._callers:  # a failed write may have emptied the queue
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

    def _drain(self) -> list[_Caller[Item, Result]]:
        """Empty the queue, and return its callers."""
        waiting = list(self._callers)
        self._callers.clear()
        self._waiting = 0
        return waiting

    async def _write_group(self, group: list[_Caller[Item, Result]]) -> None:
        try:
            results = await self._write([item for caller in group for item in caller.items])
        except Exception as error:  # noqa: BLE001 - the callers get it, or they would wait for ever
            group += self._drain()
            self._release(group)
            for caller in group:
                if not caller.future.done():
                    caller.future.set_exception(error)
            return
        self._release(group)
        position = 0
        for items, future, _ in group:
            if not future.done():  # a cancelled caller has cancelled its future
                future.set_result(results[position : position + len(items)])
            position += len(items)

    def _release(self, callers: Iterable[_Caller[Item, Result]]) -> None:
        self._held_bytes -= sum(caller.size for caller in callers)
