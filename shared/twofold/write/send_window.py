"""The window of a relay: the number of events that a run may still send, by the backlog of the consumer group.

A record that the relay sends waits behind the backlog. So the relay sends only while the backlog is small: then it
never adds more than the consumer group drains. Behind a large backlog a run still sends one batch: an event whose
record was lost must not wait for the end of a backlog that may never end.
"""

import asyncio
from collections.abc import Awaitable, Callable

from twofold.kafka.lag import Backlog

LARGE_BACKLOG = 20
"""The backlog, in batches, above which a run sends no more."""
LOOKS = 4
PAUSE_S = 2.0
"""Seconds between two looks at a large backlog. The KafkaSource commits every 5 s, so four looks see a commit."""


class SendWindow:
    """The window of one run. `read` reads the backlog: None when Kafka is unavailable."""

    def __init__(self, read: Callable[[], Awaitable[Backlog | None]], batch: int, pause_s: float | None = None) -> None:
        self._read = read
        self._batch = batch
        self._pause_s = PAUSE_S if pause_s is None else pause_s
        self._left = 0
        self._drains = True
        self.backlog: Backlog | None = None
        """The last known backlog. None when Kafka is unavailable."""

    async def open(self) -> None:
        """Read the backlog. The run may send at least one batch, if Kafka is available."""
        self._left = self._batch
        await self._look()

    async def take(self, number: int) -> int:
        """Return how many of `number` events the run may send now.

        For more events than the window has, look at the backlog again, and wait some seconds until it is smaller.
        """
        looks = 0
        while number > self._left and self._drains:
            if looks:
                await asyncio.sleep(self._pause_s)
            await self._look()
            looks += 1
            self._drains = looks < LOOKS or number <= self._left
        taken = min(number, self._left)
        self._left -= taken
        return taken

    async def _look(self) -> None:
        self.backlog = await self._read()
        if self.backlog is None:
            self._left, self._drains = 0, False
        else:
            self._left = max(self._left, LARGE_BACKLOG * self._batch - sum(self.backlog.lag.values()))
