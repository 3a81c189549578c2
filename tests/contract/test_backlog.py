"""The backlog of the consumer group of `store`, from the broker, and its use by the relay."""

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
    """Return settings with a group of this test, and with entries that are due at once."""
    changes = {"kafka_consumer_group": settings.kafka_topic, "relay_first_look_s": -2.0}
    return settings.model_copy(update=changes)


@pytest.fixture
async def relay(database: Database, settings: Settings) -> AsyncIterator[Relay]:
    sender = Sender(settings)
    yield open_relay(database, sender, settings)
    await asyncio.to_thread(sender.close, 0.0)


def put(settings: Settings, records: list[tuple[int, datetime]], record: KafkaRecord | None = None) -> None:
    """Send records with these times to these partitions."""
    value, key, headers = (record.value, record.key, list(record.headers)) if record else (b"{}", b"", [])
    with KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers) as producer:
        for partition, time in records:
            at = round(time.timestamp() * 1000)
            producer.send(settings.kafka_topic, value, key, headers, partition=partition, timestamp_ms=at).get(20)


def commit(settings: Settings, offsets: dict[int, int]) -> None:
    """Commit as KafkaSource does after the answer of `store`."""
    with KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, group_id=settings.kafka_consumer_group
    ) as consumer:
        partitions = {TopicPartition(settings.kafka_topic, number): offset for number, offset in offsets.items()}
        consumer.assign(list(partitions))
        consumer.commit({partition: OffsetAndMetadata(offset, "", -1) for partition, offset in partitions.items()})


def test_an_empty_topic_has_no_lag(settings: Settings) -> None:
    assert read_backlog(settings) == Backlog(dict.fromkeys(range(4), 0), {})


def test_lag_is_the_number_of_uncommitted_records_by_partition(settings: Settings) -> None:
    now = datetime.now(UTC)
    put(settings, [(0, now), (0, now), (0, now), (2, now)])
    commit(settings, {0: 1})
    backlog = read_backlog(settings)
    assert backlog.lag == {0: 2, 1: 0, 2: 1, 3: 0}


def test_a_group_without_a_backlog_holds_no_event(settings: Settings) -> None:
    now = datetime.now(UTC)
    put(settings, [(0, now), (1, now)])
    commit(settings, {0: 1, 1: 1})
    backlog = read_backlog(settings)
    assert (sum(backlog.lag.values()), backlog.waiting_since) == (0, {})
    assert not backlog.may_hold(IN_0, now)


def test_a_group_with_a_backlog_may_hold_events_sent_after_its_oldest_record(settings: Settings) -> None:
    """An event that was sent earlier was read already, or lost."""
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


def test_the_committed_offset_of_a_lost_partition_does_not_count(settings: Settings) -> None:
    """The broker started with an empty partition, and its offsets begin at 0: the group reads from the start."""
    now = datetime.now(UTC)
    put(settings, [(0, now), (0, now)])
    commit(settings, {0: 100})
    assert read_backlog(settings).lag[0] == 2


@pytest.mark.apache
@pytest.mark.java
def test_expired_records_are_no_backlog(settings: Settings, apache: Broker) -> None:
    """`store` was unavailable for longer than the retention of the topic, so no record is left."""
    own = settings.model_copy(update={"kafka_bootstrap_servers": apache.bootstrap})
    ensure_topic(own)
    put(own, [(0, datetime.now(UTC))] * 2)
    commit(own, {0: 1})
    with closing(KafkaAdminClient(bootstrap_servers=apache.bootstrap)) as admin:
        admin.delete_records({TopicPartition(own.kafka_topic, 0): 2})
    assert read_backlog(own) == Backlog(dict.fromkeys(range(4), 0), {})


@pytest.mark.slow
def test_an_unavailable_broker_raises_unavailable(settings: Settings) -> None:
    with pytest.raises(Unavailable, match="Kafka"):
        read_backlog(without_kafka(settings))


async def test_the_relay_holds_an_event_until_the_group_has_passed_its_record(
    relay: Relay, database: Database, settings: Settings
) -> None:
    """Sending again would only increase the backlog."""
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
