"""A stand-in for Knative's KafkaSource: `python -m dev.kafka_source --help`.

It obeys the data plane's rules, bad ones included: one POST an event, attributes raw and damaged, its list of retried
statuses, finite retries, dead letters, offsets committed every 5 s and only the contiguous ones. It prints `ready` when
its consumers have their partitions, and logs one JSON line of statistics on SIGUSR1 and at its end. SIGTERM ends it in
order; after SIGKILL what was not committed comes again.
"""

import asyncio
import json
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
import uvloop
from kafka import TopicPartition

from dev.kafka_source_consumer import Group, SourceConsumer
from dev.kafka_source_delivery import Deliverer, Delivery, Lane
from dev.kafka_source_event import SourceName
from dev.kafka_source_http import Destination
from dev.kafka_source_rules import BackoffPolicy, retries

_GRACE_S = 5.0
_BACKLOG_PER_REQUEST = 10


class Ordering(StrEnum):
    """`spec.ordering`."""

    ORDERED = "ordered"
    UNORDERED = "unordered"


class InitialOffset(StrEnum):
    """`spec.initialOffset`."""

    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True)
class Concurrency:
    """How many consumers there are, and what each has in flight."""

    ordering: Ordering
    consumers: int
    max_in_flight: int


class Member:
    """One consumer and its lanes: one lane for all, or with `ordered` one for each partition."""

    def __init__(self, deliverer: Deliverer, concurrency: Concurrency) -> None:
        self._loop = asyncio.get_running_loop()
        self._deliverer = deliverer
        self._in_order = concurrency.ordering is Ordering.ORDERED
        self._workers = 1 if self._in_order else concurrency.max_in_flight
        self._max_backlog = concurrency.max_in_flight * _BACKLOG_PER_REQUEST
        self._lanes: dict[TopicPartition | None, Lane] = {}
        self.in_group = asyncio.Event()
        self.has_partitions = asyncio.Event()

    def consumer(self, group: Group) -> SourceConsumer:
        """Its consumer, to be run in a thread."""
        return SourceConsumer(group, self._hand_over, self._may_fetch, self._on_ready)

    def _may_fetch(self, partition: TopicPartition) -> bool:
        lane = self._lanes.get(self._key(partition))
        return lane is None or lane.backlog < self._max_backlog

    def _hand_over(self, partition: TopicPartition, deliveries: list[Delivery]) -> None:
        self._loop.call_soon_threadsafe(self._put, self._key(partition), deliveries)

    def _on_ready(self, partitions: set[TopicPartition]) -> None:
        self._loop.call_soon_threadsafe(self.in_group.set)
        if partitions:
            self._loop.call_soon_threadsafe(self.has_partitions.set)

    def _key(self, partition: TopicPartition) -> TopicPartition | None:
        return partition if self._in_order else None

    def _put(self, key: TopicPartition | None, deliveries: list[Delivery]) -> None:
        if key not in self._lanes:
            self._lanes[key] = Lane(self._deliverer, self._workers)
        self._lanes[key].put(deliveries)

    async def close(self, grace: float) -> None:
        """Wait for what is in flight, and drop what waits."""
        await asyncio.gather(*(lane.close(grace) for lane in self._lanes.values()))


async def serve(group: Group, deliverer: Deliverer, concurrency: Concurrency) -> None:
    """Run the source until SIGTERM or SIGINT, or until a consumer fails in a way that nobody foresaw."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, log_stats, deliverer)
    members = [Member(deliverer, concurrency) for _ in range(concurrency.consumers)]
    consumers = [member.consumer(group) for member in members]
    threads = ThreadPoolExecutor(len(consumers), thread_name_prefix="consumer")
    running = [loop.run_in_executor(threads, consumer.run) for consumer in consumers]
    announcing = asyncio.create_task(announce(members))
    ends: list[asyncio.Future[Any]] = [asyncio.create_task(ended.wait()), *running]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    for consumer in consumers:
        consumer.stop_fetching()
    await asyncio.gather(*(member.close(_GRACE_S) for member in members))
    for consumer in consumers:
        consumer.leave()
    log_stats(deliverer)
    await asyncio.gather(*running)


async def announce(members: list[Member]) -> None:
    """Print `ready` once every consumer was in an assignment, and one of them has partitions."""
    await asyncio.gather(*(member.in_group.wait() for member in members))
    having = [asyncio.create_task(member.has_partitions.wait()) for member in members]
    _, without = await asyncio.wait(having, return_when=asyncio.FIRST_COMPLETED)
    for waiting in without:
        waiting.cancel()
    print("ready", flush=True)


def log_stats(deliverer: Deliverer) -> None:
    """Write the statistics as one JSON line to stderr."""
    print(json.dumps(asdict(deliverer.stats)), file=sys.stderr, flush=True)


def main(
    *,
    bootstrap_servers: Annotated[str, typer.Option(help="host:port,...")],
    topic: Annotated[str, typer.Option()],
    group: Annotated[str, typer.Option(help="spec.consumerGroup")],
    sink: Annotated[str, typer.Option(help="http:// URL of the sink")],
    name: Annotated[str, typer.Option(help="name of the KafkaSource; plain records carry it in their source")],
    namespace: Annotated[str, typer.Option(help="its namespace")] = "local",
    dead_letter_sink: Annotated[str | None, typer.Option(help="http:// URL; without it, failures are lost")] = None,
    ordering: Annotated[Ordering, typer.Option()] = Ordering.ORDERED,
    consumers: Annotated[int, typer.Option(min=1)] = 1,
    initial_offset: Annotated[InitialOffset, typer.Option()] = InitialOffset.LATEST,
    retry: Annotated[int | None, typer.Option(min=0, help="10 if no delivery option is given, else 0")] = None,
    backoff_policy: Annotated[BackoffPolicy | None, typer.Option(help="default: exponential")] = None,
    backoff_delay: Annotated[float | None, typer.Option(min=0, help="seconds")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="seconds; default 600")] = None,
    session_timeout_ms: Annotated[int, typer.Option(min=1000)] = 6000,
    commit_every: Annotated[float, typer.Option(min=0.01, help="seconds")] = 5.0,
    max_in_flight: Annotated[int, typer.Option(min=1, help="per consumer, unordered")] = 50,
) -> None:
    """Deliver a topic's records to a sink as Knative's KafkaSource does. Defaults are KafkaSource's own."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    delivery = retries(retry, backoff_policy, backoff_delay, timeout, dead_letters=dead_letter_sink is not None)
    deliverer = Deliverer(
        sink=Destination(sink, namespace, delivery.timeout),
        dead_letter_sink=Destination(dead_letter_sink, namespace, delivery.timeout) if dead_letter_sink else None,
        retries=delivery,
    )
    settings = Group(
        bootstrap_servers=bootstrap_servers,
        topic=topic,
        group=group,
        source=SourceName(namespace, name),
        initial_offset=initial_offset,
        session_timeout_ms=session_timeout_ms,
        commit_every=commit_every,
    )
    uvloop.run(serve(settings, deliverer, Concurrency(ordering, consumers, max_in_flight)))


if __name__ == "__main__":
    typer.run(main)
