"""What the consumer group of `store` has before it, as the broker tells it, and what the relay makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from zlib import crc32

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from dev.servers.broker import Broker
from tests.helpers import accept, an_event, without_kafka
from twofold.cloudevents.encode import KafkaRecord, encode_kafka
from twofold.errors import Unavailable
from twofold.kafka.lag import Backlog, read_backlog
from twofold.kafka.sender import Sender
from twofold.kafka.topic import ensure_topic
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.write.relay import Relay, open_relay

pytestmark = pytest.mark.guarantee("R9")

MINUTE = timedelta(minutes=1)
IN_0, IN_1, IN_2 = (
    next(key for key in map(str.encode, map(str, range(100))) if crc32(key) % 4 == number) for number in range(3)
)
"""Keys of records in these partitions."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a group of its own, and a first look that never has to be waited for."""
    changes = {"kafka_consumer_group": settings.kafka_topic, "relay_first_look_s": -2.0}
    return settings.model_copy(update=changes)


@pytest.fixture
async def relay(database: Database, settings: Settings) -> AsyncIterator[Relay]:
    sender = Sender(settings)
    yield open_relay(database, sender, settings)
    await asyncio.to_thread(sender.close, 0.0)


def put(settings: Settings, records: list[tuple[int, datetime]], record: KafkaRecord | None = None) -> None:
    """Records into those partitions, with those times."""
    value, key, headers = (record.value, record.key, list(record.headers)) if record else (b"{}", b"", [])
    with KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers) as producer:
        for partition, time in records:
            at = round(time.timestamp() * 1000)
            producer.send(settings.kafka_topic, value, key, headers, partition=partition, timestamp_ms=at).get(20)


def commit(settings: Settings, offsets: dict[int, int]) -> None:
    """As KafkaSource does after `store` answered."""
    with KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, group_id=settings.kafka_consumer_group
    ) as consumer:
        partitions = {TopicPartition(settings.kafka_topic, number): offset for number, offset in offsets.items()}
        consumer.assign(list(partitions))
        consumer.commit({partition: OffsetAndMetadata(offset, "", -1) for partition, offset in partitions.items()})


def test_an_empty_topic_has_no_lag(settings: Settings) -> None:
    assert read_backlog(settings) == Backlog(dict.fromkeys(range(4), 0), {})


def test_lag_is_what_is_not_committed_by_partition(settings: Settings) -> None:
    now = datetime.now(UTC)
    put(settings, [(0, now), (0, now), (0, now), (2, now)])
    commit(settings, {0: 1})
    backlog = read_backlog(settings)
    assert backlog.lag == {0: 2, 1: 0, 2: 1, 3: 0}


def test_a_group_that_has_read_everything_holds_nothing(settings: Settings) -> None:
    now = datetime.now(UTC)
    put(settings, [(0, now), (1, now)])
    commit(settings, {0: 1, 1: 1})
    backlog = read_backlog(settings)
    assert (sum(backlog.lag.values()), backlog.waiting_since) == (0, {})
    assert not backlog.may_hold(IN_0, now)


def test_a_group_that_is_behind_may_hold_what_was_sent_after_the_oldest_that_waits(settings: Settings) -> None:
    """And not what was sent before: that has been passed, or lost."""
    now = datetime.now(UTC).replace(microsecond=0)
    put(settings, [(0, now - 3 * MINUTE), (0, now - 2 * MINUTE), (0, now - MINUTE), (1, now)])
    commit(settings, {0: 1})
    backlog = read_backlog(settings)
    assert backlog.waiting_since == {0: now - 2 * MINUTE, 1: now}
    assert backlog.may_hold(IN_0, now)
    assert backlog.may_hold(IN_0, now - 2 * MINUTE)
    assert not backlog.may_hold(IN_0, now - 3 * MINUTE)
    assert not backlog.may_hold(IN_1, now - MINUTE), "the group has read all of its partition up to now"
    assert not backlog.may_hold(IN_2, now)


def test_what_was_committed_of_a_log_that_was_lost_counts_for_nothing(settings: Settings) -> None:
    """The broker began anew, and its offsets with it: the group reads from the start."""
    now = datetime.now(UTC)
    put(settings, [(0, now), (0, now)])
    commit(settings, {0: 100})
    assert read_backlog(settings).lag[0] == 2


@pytest.mark.apache
@pytest.mark.java
def test_what_expired_before_it_was_read_counts_for_nothing(settings: Settings, apache: Broker) -> None:
    """`store` was away for longer than the topic keeps its records: nothing is left, and nothing comes behind it."""
    own = settings.model_copy(update={"kafka_bootstrap_servers": apache.bootstrap})
    ensure_topic(own)
    put(own, [(0, datetime.now(UTC))] * 2)
    commit(own, {0: 1})
    with closing(KafkaAdminClient(bootstrap_servers=apache.bootstrap)) as admin:
        admin.delete_records({TopicPartition(own.kafka_topic, 0): 2})
    assert read_backlog(own) == Backlog(dict.fromkeys(range(4), 0), {})


@pytest.mark.slow
def test_a_broker_that_is_away_is_told(settings: Settings) -> None:
    with pytest.raises(Unavailable, match="Kafka"):
        read_backlog(without_kafka(settings))


async def test_the_relay_holds_what_waits_in_the_topic_until_the_group_has_passed_it(
    relay: Relay, database: Database, settings: Settings
) -> None:
    """While `store` is behind, sending again would only make it more."""
    event = an_event(aggregate_id=IN_0.decode())
    await accept(database, event)
    await asyncio.to_thread(put, settings, [(0, datetime.now(UTC) - 2 * MINUTE)], encode_kafka(event))
    run = await relay.run()
    assert run is not None
    assert (run.held, run.resent) == (1, 0)
    await asyncio.to_thread(commit, settings, {0: 1})
    due = {"$set": {"outbox.next_try": datetime.now(UTC) - MINUTE}}
    await database["events"].update_one({"_id": event.event_id}, due)
    run = await relay.run()
    assert run is not None
    assert (run.held, run.resent) == (0, 1)
