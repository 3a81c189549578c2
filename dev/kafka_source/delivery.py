"""Delivery to the sink and to the dead-letter sink, in order or not. All code here runs on the event loop."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dev.kafka_source.event import NeverFinishes, SinkResponse, SourceEvent, dead_letter
from dev.kafka_source.http import Destination
from dev.kafka_source.java import RefusedByVertx
from dev.kafka_source.rules import OffsetTracker, Retries, is_retried, is_success

log = logging.getLogger(__name__)


@dataclass
class DeliveryCounts:
    """The results since the start: `retried` counts requests, the other fields count events."""

    delivered: int = 0
    retried: int = 0
    dead_lettered: int = 0
    lost: int = 0


class Failure(NamedTuple):
    """The reason why a destination did not take an event, and its answer if it gave one."""

    reason: str
    response: SinkResponse | None = None


@dataclass
class Deliverer:
    """Sends an event to the sink, else to the dead-letter sink. An event that both refuse is lost."""

    sink: Destination
    dead_letter_sink: Destination | None
    retries: Retries
    counts: DeliveryCounts = field(default_factory=DeliveryCounts)

    async def deliver(self, event: SourceEvent) -> None:
        """Return when the offset of the event may be committed. Raises `NeverFinishes`."""
        failure = await self._send(self.sink, event)
        if failure is None:
            self.counts.delivered += 1
            return
        to_keep = dead_letter(event, self.sink.url, failure.response)
        second: Failure | None = Failure("not configured")
        if self.dead_letter_sink:
            second = await self._send(self.dead_letter_sink, to_keep)
        if second is None:
            self.counts.dead_lettered += 1
        else:
            self.counts.lost += 1
            log.error("LOST %s: sink: %s; dead-letter sink: %s", name_of(event), failure.reason, second.reason)

    async def _send(self, destination: Destination, event: SourceEvent) -> Failure | None:
        """Send the event with all retries. Return the last failure, or None after a success."""
        retry = 0
        while (failure := await self._try(destination, event)) is not None:
            final = failure.response is not None and not is_retried(failure.response.status)
            if final or retry >= self.retries.retry:
                break
            retry += 1
            self.counts.retried += 1
            await asyncio.sleep(self.retries.delay_before(retry))
        return failure

    async def _try(self, destination: Destination, event: SourceEvent) -> Failure | None:
        """Send the event once. A header value that Vert.x refuses is a failure too: Vert.x retries it in vain."""
        try:
            response = await destination.post(destination.request(event))
        except TimeoutError:
            return Failure(f"no answer within {destination.timeout:g} s")
        except (OSError, RefusedByVertx) as error:
            return Failure(str(error))
        return None if is_success(response.status) else Failure(f"status {response.status}", response)


class Delivery(NamedTuple):
    """A record on its way to the sink. `event` is None if the batch of the record is lost."""

    tracker: OffsetTracker
    offset: int
    event: SourceEvent | None


class Lane:
    """A queue with one request in flight for each worker. A partition in order has 1 worker."""

    def __init__(self, deliverer: Deliverer, workers: int) -> None:
        self._deliverer = deliverer
        self._queue: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._closing = False
        self._workers = [asyncio.create_task(self._work()) for _ in range(workers)]
        for worker in self._workers:
            worker.add_done_callback(_log_failure)

    @property
    def backlog(self) -> int:
        """The number of queued events. Any thread may read it."""
        return self._queue.qsize()

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Queue records in the order of their offsets."""
        for delivery in deliveries:
            delivery.tracker.received(delivery.offset)
            if delivery.event is None:
                self._deliverer.counts.lost += 1
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
                log.exception("STUCK %s: the worker waits for ever", name_of(event))
                await asyncio.Event().wait()

    async def close(self, grace: float) -> None:
        """Start no more requests, wait `grace` seconds for the requests in flight, then drop them."""
        self._closing = True
        for _ in self._workers:
            self._queue.put_nowait(None)
        _, late = await asyncio.wait(self._workers, timeout=grace)
        for worker in late:
            worker.cancel()


def _log_failure(worker: asyncio.Task[None]) -> None:
    if not worker.cancelled() and (error := worker.exception()) is not None:
        log.critical("a worker failed", exc_info=error)


def name_of(event: SourceEvent) -> str:
    """Return a name of the event for logs: its id, and its partition and offset in Kafka."""
    attributes = event.attributes
    where = f"partition {attributes['knativekafkapartition']} offset {attributes['knativekafkaoffset']}"
    return f"{attributes['id']!r} ({where})"
