"""The process of a KafkaSource: `python -m dev.kafka_source --help`.

The process prints `ready` when its consumers have their partitions. It writes statistics as one line of JSON to stderr
after SIGUSR1 and at its end. After SIGTERM it starts no more requests, and ends when the requests under way have ended.
It neither commits nor leaves its group, as the data plane: its partitions wait for the session to expire, and the
records since the last commit come again.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer
import uvloop

from dev.kafka_source.consumer import RATES, InitialOffset, Ordering, SourceConsumer, SourceSettings
from dev.kafka_source.delivery import Deliverer
from dev.kafka_source.event import KeyType, SourceName
from dev.kafka_source.http import MAX_HEADERS, Destination
from dev.kafka_source.rules import BackoffPolicy, retries

log = logging.getLogger(__name__)

_GRACE_S = 5.0


async def serve(settings: SourceSettings, deliverer: Deliverer) -> NoReturn:
    """Run the source until SIGTERM or SIGINT, or until a consumer ends with an unexpected error."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, log_counts, deliverer)
    consumers = [SourceConsumer(settings, deliverer) for _ in range(settings.consumers)]
    threads = ThreadPoolExecutor(len(consumers), thread_name_prefix="consumer")
    running = [loop.run_in_executor(threads, consumer.run) for consumer in consumers]
    announcing = asyncio.create_task(announce(consumers))
    ends: list[asyncio.Future[Any]] = [asyncio.create_task(ended.wait()), *running]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    await asyncio.gather(*(consumer.close(_GRACE_S) for consumer in consumers))
    log_counts(deliverer)
    failed = [consumer for consumer in running if consumer.done()]
    for consumer in failed:
        log.critical("a consumer failed", exc_info=consumer.exception())
    logging.shutdown()
    os._exit(1 if failed else 0)  # an orderly end of the consumers' threads would leave the group


async def announce(consumers: list[SourceConsumer]) -> None:
    """Print `ready` as soon as every consumer had an assignment and at least one consumer has partitions."""
    await asyncio.gather(*(consumer.in_group.wait() for consumer in consumers))
    assigned = [asyncio.create_task(consumer.has_partitions.wait()) for consumer in consumers]
    _, unassigned = await asyncio.wait(assigned, return_when=asyncio.FIRST_COMPLETED)
    for waiting in unassigned:
        waiting.cancel()
    print("ready", flush=True)


def log_counts(deliverer: Deliverer) -> None:
    """Write the statistics to stderr as a line of JSON."""
    print(json.dumps(asdict(deliverer.counts)), file=sys.stderr, flush=True)


def main(
    *,
    bootstrap_servers: Annotated[str, typer.Option(help="host:port,...")],
    topic: Annotated[str, typer.Option()],
    group: Annotated[str, typer.Option(help="spec.consumerGroup")],
    sink: Annotated[str, typer.Option(help="http:// URL of the sink")],
    name: Annotated[str, typer.Option(help="name of the KafkaSource; events made of plain records carry it")],
    namespace: Annotated[str, typer.Option(help="namespace of the KafkaSource")] = "local",
    dead_letter_sink: Annotated[str | None, typer.Option(help="http:// URL; without it, failures are lost")] = None,
    ordering: Annotated[Ordering, typer.Option()] = "ordered",
    consumers: Annotated[int, typer.Option(min=1, help="dispatcher pods: each has one consumer")] = 1,
    initial_offset: Annotated[InitialOffset, typer.Option()] = "latest",
    retry: Annotated[int | None, typer.Option(min=0, help="10 without any delivery option, else 0")] = None,
    backoff_policy: Annotated[BackoffPolicy | None, typer.Option(help="default: exponential")] = None,
    backoff_delay: Annotated[float | None, typer.Option(min=0, help="seconds")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="seconds; default 600")] = None,
    session_timeout_ms: Annotated[int, typer.Option(min=1000)] = 10_000,
    commit_every: Annotated[float, typer.Option(min=0.01, help="seconds")] = 5.0,
    max_poll_records: Annotated[int, typer.Option(min=1, help="records that start together, unordered")] = 50,
    rate: Annotated[float | None, typer.Option(min=0, help="records/s of a consumer; 0: no limit")] = None,
    max_headers: Annotated[int, typer.Option(min=1, help="the limit of Envoy in front of the sinks")] = MAX_HEADERS,
    key_type: Annotated[KeyType, typer.Option(help="the label .../key-type")] = "string",
) -> None:
    """Deliver the records of a topic to a sink as Knative's KafkaSource does, with the defaults of KafkaSource."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    delivery = retries(retry, backoff_policy, backoff_delay, timeout, dead_letters=dead_letter_sink is not None)
    deliverer = Deliverer(
        sink=Destination(sink, namespace, delivery.timeout, max_headers),
        dead_letter_sink=(
            Destination(dead_letter_sink, namespace, delivery.timeout, max_headers) if dead_letter_sink else None
        ),
        retries=delivery,
    )
    settings = SourceSettings(
        bootstrap_servers=bootstrap_servers,
        topic=topic,
        group=group,
        source=SourceName(namespace, name, key_type),
        initial_offset=initial_offset,
        session_timeout_ms=session_timeout_ms,
        commit_every=commit_every,
        ordering=ordering,
        consumers=consumers,
        max_poll_records=max_poll_records,
        rate=RATES[ordering] if rate is None else rate,
    )
    uvloop.run(serve(settings, deliverer))


if __name__ == "__main__":
    typer.run(main)
