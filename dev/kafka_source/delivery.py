"""Delivery to the sink and to the dead-letter sink, in order or not. All code here runs on the event loop."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dev.kafka_source.event import NeverFinishes, SinkResponse, SourceEvent, dead_letter
from dev.kafka_source.http import Destination
from dev.kafka_source.java import RefusedByVertx
from dev.kafka_source.rules import OffsetTracker, RecordRate, Retries, is_retried, is_success

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
    """A queue of records whose requests start in batches, as the data plane polls.

    With fewer than `batch` requests under way, the next `batch` records start. So at most `2 * batch - 1` requests are
    under way: 99 with the `max.poll.records` of 50. A partition in order has the batch of 1.
    """

    def __init__(self, deliverer: Deliverer, batch: int, rate: RecordRate) -> None:
        self._deliverer = deliverer
        self._batch = batch
        self._rate = rate
        self._timer: asyncio.TimerHandle | None = None
        self._queue: deque[Delivery] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def backlog(self) -> int:
        """The number of queued events. Any thread may read it."""
        return len(self._queue)

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Queue records in the order of their offsets."""
        for delivery in deliveries:
            delivery.tracker.received(delivery.offset)
            if delivery.event is None:
                self._deliverer.counts.lost += 1
                delivery.tracker.finished(delivery.offset)
            else:
                self._queue.append(delivery)
        self._start()

    def _start(self) -> None:
        """Start batches until enough requests are under way, or until the rate asks to wait."""
        while self._timer is None and self._queue and not self._closing and len(self._under_way) < self._batch:
            loop = asyncio.get_running_loop()
            if wait := self._rate.wait(loop.time()):
                self._timer = loop.call_later(wait, self._go_on)
            else:
                self._start_batch()

    def _go_on(self) -> None:
        self._timer = None
        self._start()

    def _start_batch(self) -> None:
        deliveries = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
        self._rate.started(len(deliveries))
        for delivery in deliveries:
            if delivery.event is not None and not delivery.tracker.revoked:
                task = asyncio.create_task(self._deliver(delivery.event, delivery))
                self._under_way.add(task)
                task.add_done_callback(self._ended)

    async def _deliver(self, event: SourceEvent, delivery: Delivery) -> None:
        try:
            await self._deliverer.deliver(event)
            delivery.tracker.finished(delivery.offset)
        except NeverFinishes:
            log.exception("STUCK %s: its request counts as under way for ever", name_of(event))
            await asyncio.Event().wait()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a delivery failed", exc_info=error)
        self._start()

    async def close(self, grace: float) -> None:
        """Start no more requests, wait `grace` seconds for the requests under way, then drop them."""
        self._closing = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=grace)
            for task in late:
                task.cancel()


def name_of(event: SourceEvent) -> str:
    """Return a name of the event for logs: its id, and its partition and offset in Kafka."""
    attributes = event.attributes
    where = f"partition {attributes['knativekafkapartition']} offset {attributes['knativekafkaoffset']}"
    return f"{attributes['id']!r} ({where})"
