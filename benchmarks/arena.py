"""The arena: real servers, one function at a time, empty collections before a run, and a count after it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from pymongo import MongoClient

from benchmarks.contestants import Contestant
from benchmarks.events import Feed, Feeds
from benchmarks.figures import Held, Measurement, complaints
from benchmarks.load import LoadGenerator
from dev.database import CODEC, Document
from dev.stack import Stack

WARM_UP_S = 1.0


During = Callable[[], AbstractContextManager[None]]


class NotBelievable(RuntimeError):
    """A run lost an event, refused an event, or broke, so the benchmark gives no figures."""


class RanOut(NotBelievable):
    """The ready-made events did not last, so the generator sent some twice. The machine needs more of them."""


class Arena:
    """A stack without functions, the ready-made requests, and the load generator."""

    def __init__(self, stack: Stack, feeds: Feeds, generator: LoadGenerator) -> None:
        self._stack = stack
        self._feeds = feeds
        self._generator = generator

    def run(self, contestant: Contestant, seconds: float, during: During = nullcontext) -> Measurement:
        """Measure once. `during` begins after the warm-up, and may act on the broker.

        Raises `NotBelievable` after any failure, or if the servers hold less than the acknowledged events. Raises
        `RanOut` if the ready-made events did not last.
        """
        self._clear()
        in_topic = self._in_topic()
        feed: Feed = getattr(self._feeds, contestant.feed)
        started = contestant.start(self._stack)
        try:
            warm_up = self._generator.run(started.port, feed.warm_up, WARM_UP_S)
            with during():
                load = self._generator.run(started.port, feed.measured, seconds)
        finally:
            started.stop()
        run = Measurement(
            load,
            warm_up,
            self._held(contestant, max(0, self._in_topic() - in_topic)),  # a broker may have lost its log
            events_per_request=contestant.events_per_request,
            stores=contestant.collection is not None,
            sends=contestant.sends,
        )
        if run.ran_out:
            raise RanOut(f"{contestant.name}: the ready-made events did not last")
        if found := complaints(run):
            raise NotBelievable(f"{contestant.name}: {'; '.join(found)}{self._log_tail(contestant)}")
        return run

    def _log_tail(self, contestant: Contestant) -> str:
        log: Path = self._stack.logs / f"{contestant.function}.log"
        lines = log.read_text(errors="replace").splitlines()[-10:]
        return "".join(f"\n  | {line}" for line in lines)

    @contextmanager
    def _client(self) -> Iterator[MongoClient[Document]]:
        client: MongoClient[Document] = MongoClient(self._stack.mongodb_uri)
        with closing(client):
            yield client

    def _clear(self) -> None:
        """Set up new collections, and flush the writes of the run before to disk."""
        with self._client() as client:
            client.drop_database(self._stack.database)
            client.admin.command("fsync")
        self._stack.setup()

    def _held(self, contestant: Contestant, in_topic: int) -> Held:
        """Read the primary. By `_id` an event counts once."""
        if contestant.collection is None:
            return Held(stored=0)
        with self._client() as client:
            database = client.get_database(self._stack.database, codec_options=CODEC)
            stored = {str(document["_id"]) for document in database[contestant.collection].find({}, {"_id": 1})}
            return Held(
                stored=len(stored & self._feeds.ids),
                dead=database["dead_letters"].count_documents({}),
                outbox_entries=database["events"].count_documents({"outbox": {"$exists": True}}),
                in_topic=in_topic,
            )

    def _in_topic(self) -> int:
        """Return the number of records that the topic ever got."""
        with closing(KafkaConsumer(bootstrap_servers=self._stack.kafka)) as consumer:
            partitions = consumer.partitions_for_topic(self._stack.topic) or ()
            ends = consumer.end_offsets([TopicPartition(self._stack.topic, partition) for partition in partitions])
            return sum(ends.values())
