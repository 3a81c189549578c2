"""Delivery to the sink and the dead-letter sink, in order or not. Everything here runs on the event loop."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dev.kafka_source_event import NeverFinishes, Response, SourceEvent, dead_letter
from dev.kafka_source_http import Destination
from dev.kafka_source_java import RefusedByVertx
from dev.kafka_source_rules import OffsetTracker, Retries, is_retried, is_success

log = logging.getLogger(__name__)


@dataclass
class Stats:
    """What became of the events since the start; `retried` counts requests, the others events."""

    delivered: int = 0
    retried: int = 0
    dead_lettered: int = 0
    lost: int = 0


class Undelivered(Exception):
    """A destination did not take an event, retries included; `response` is its last answer, if it gave one."""

    def __init__(self, reason: str, response: Response | None = None) -> None:
        super().__init__(reason)
        self.response = response


@dataclass
class Deliverer:
    """Sends each event to the sink, else to the dead-letter sink; what neither takes is lost."""

    sink: Destination
    dead_letter_sink: Destination | None
    retries: Retries
    stats: Stats = field(default_factory=Stats)

    async def deliver(self, event: SourceEvent) -> None:
        """Return when the event's offset may be committed. Raises `NeverFinishes`."""
        try:
            await self._send(self.sink, event)
            self.stats.delivered += 1
        except Undelivered as failure:
            await self._dead_letter(event, failure)

    async def _dead_letter(self, event: SourceEvent, failure: Undelivered) -> None:
        letter = dead_letter(event, self.sink.url, failure.response)
        if self.dead_letter_sink is None:
            self._lose(event, failure, "there is none")
            return
        try:
            await self._send(self.dead_letter_sink, letter)
            self.stats.dead_lettered += 1
        except Undelivered as second:
            self._lose(event, failure, second)

    def _lose(self, event: SourceEvent, sink: Undelivered, dead_letter_sink: Undelivered | str) -> None:
        self.stats.lost += 1
        log.error("LOST %s: sink: %s; dead-letter sink: %s", name_of(event), sink, dead_letter_sink)

    async def _send(self, destination: Destination, event: SourceEvent) -> None:
        retry = 0
        while (failure := await self._try(destination, event)) is not None:
            final = failure.response is not None and not is_retried(failure.response.status)
            if final or retry >= self.retries.retry:
                raise failure
            retry += 1
            self.stats.retried += 1
            await asyncio.sleep(self.retries.delay_before(retry))

    async def _try(self, destination: Destination, event: SourceEvent) -> Undelivered | None:
        """Send it once. A value that Vert.x refuses fails like a broken connection, so it is retried in vain."""
        try:
            response = await destination.post(destination.request(event))
        except TimeoutError:
            return Undelivered(f"no answer within {destination.timeout:g} s")
        except (OSError, RefusedByVertx) as error:
            return Undelivered(str(error))
        return None if is_success(response.status) else Undelivered(f"status {response.status}", response)


class Delivery(NamedTuple):
    """A record on its way; `event` is None if its batch was lost."""

    tracker: OffsetTracker
    offset: int
    event: SourceEvent | None


class Lane:
    """A queue with as many requests in flight as it has workers: 1 for a partition in order."""

    def __init__(self, deliverer: Deliverer, workers: int) -> None:
        self._deliverer = deliverer
        self._queue: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._closing = False
        self._workers = [asyncio.create_task(self._work()) for _ in range(workers)]

    @property
    def backlog(self) -> int:
        """How many events wait. May be read by any thread."""
        return self._queue.qsize()

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Queue records in the order of their offsets."""
        for delivery in deliveries:
            delivery.tracker.received(delivery.offset)
            if delivery.event is None:
                self._deliverer.stats.lost += 1
                delivery.tracker.finished(delivery.offset)
            else:
                self._queue.put_nowait(delivery)

    async def _work(self) -> None:
        while (delivery := await self._queue.get()) is not None:
            tracker, offset, event = delivery
            if self._closing or tracker.revoked or event is None:
                continue
            try:
                await self._deliverer.deliver(event)
                tracker.finished(offset)
            except NeverFinishes:
                log.exception("STUCK %s, and with it its place in flight", name_of(event))
                await asyncio.Event().wait()

    async def close(self, grace: float) -> None:
        """Start nothing more, wait that long for what is in flight, then drop it."""
        self._closing = True
        for _ in self._workers:
            self._queue.put_nowait(None)
        _, late = await asyncio.wait(self._workers, timeout=grace)
        for worker in late:
            worker.cancel()


def name_of(event: SourceEvent) -> str:
    """An event's name for people: its id, and where in Kafka it is."""
    attributes = event.attributes
    where = f"partition {attributes['knativekafkapartition']} offset {attributes['knativekafkaoffset']}"
    return f"{attributes['id']!r} ({where})"
