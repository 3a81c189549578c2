"""The sender on a real broker, and without a broker."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.helpers import an_event, some_events, without_kafka
from twofold.cloudevents.encode import encode_kafka
from twofold.errors import TooLarge, Unavailable
from twofold.kafka.sender import Sender
from twofold.settings import Settings


@contextmanager
def sending(settings: Settings) -> Iterator[Sender]:
    sender = Sender(settings)
    try:
        yield sender
    finally:
        sender.close(0.0)


def records_in(settings: Settings, number: int) -> list[tuple[int, bytes, bytes, list[tuple[str, bytes]]]]:
    """Return partition, key, value and headers of the first `number` records, by partition."""
    found: list[tuple[int, bytes, bytes, list[tuple[str, bytes]]]] = []
    with KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest") as consumer:
        partitions = consumer.partitions_for_topic(settings.kafka_topic) or set()
        consumer.assign([TopicPartition(settings.kafka_topic, partition) for partition in partitions])
        consumer.seek_to_beginning()
        deadline = time.monotonic() + 20
        while len(found) < number and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=500).values():
                found += [(record.partition, record.key, record.value, list(record.headers)) for record in records]
    return sorted(found, key=lambda record: record[0])


@pytest.fixture
def no_kafka(settings: Settings) -> Settings:
    """Return settings with an address without a broker."""
    return without_kafka(settings, send_capacity=10)


@pytest.mark.guarantee("R5")
async def test_a_sent_record_is_in_the_topic_unchanged(settings: Settings) -> None:
    event = an_event()
    record = encode_kafka(event)
    with sending(settings) as sender:
        assert await sender.send([record]) == [None]
    ((_, key, value, headers),) = records_in(settings, 1)
    assert (key, value, headers) == (record.key, record.value, list(record.headers))


@pytest.mark.guarantee("R22")
async def test_an_aggregate_stays_in_one_partition_and_in_order(settings: Settings) -> None:
    """The id of the aggregate is the key of its records in the only topic."""
    events = [an_event(aggregate_id=f"order-{number % 5}", payload={"number": number}) for number in range(50)]
    with sending(settings) as sender:
        assert set(await sender.send([encode_kafka(event) for event in events])) == {None}
    records = records_in(settings, 50)
    for aggregate in range(5):
        mine = [(partition, value) for partition, key, value, _ in records if key == f"order-{aggregate}".encode()]
        assert len({partition for partition, _ in mine}) == 1
        assert [value for _, value in mine] == [b'{"number":%d}' % number for number in range(aggregate, 50, 5)]
    assert len({partition for partition, *_ in records}) > 1


@pytest.mark.guarantee("G7", "R2")
def test_without_kafka_the_queue_stays_within_its_capacity(no_kafka: Settings) -> None:
    """Further records are refused at once, and queued records expire: no record waits for a broker for ever."""
    with sending(no_kafka) as sender:
        assert sender.offer([encode_kafka(event) for event in some_events(15)]) == 10
        assert sender.offer([encode_kafka(an_event())]) == 0
        assert sender.flush(15.0)
        assert sender.offer([encode_kafka(an_event())]) == 1


@pytest.mark.guarantee("G7")
async def test_without_kafka_every_record_fails_in_time(no_kafka: Settings) -> None:
    """This includes the records that a full queue refuses."""
    with sending(no_kafka) as sender:
        outcomes = await sender.send([encode_kafka(event) for event in some_events(12)])
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 12


@pytest.mark.guarantee("G7")
async def test_a_record_without_an_outcome_is_not_called_acknowledged(
    no_kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is missing after a time-out, and after the sender was closed in between."""
    records = [encode_kafka(event) for event in some_events(2)]
    with sending(no_kafka) as sender:
        monkeypatch.setattr(sender, "flush", lambda _: False)
        assert [type(outcome) for outcome in await sender.send(records)] == [Unavailable] * 2

        def close_first(timeout_s: float) -> bool:
            monkeypatch.undo()
            sender.close(0)
            return sender.flush(timeout_s)

        monkeypatch.setattr(sender, "flush", close_first)
        assert [type(outcome) for outcome in await sender.send(records)] == [Unavailable] * 2


@pytest.mark.guarantee("G7")
def test_the_queue_stays_within_its_bytes(no_kafka: Settings) -> None:
    """A few large records must not take the memory of many small records."""
    record = encode_kafka(an_event(payload={"text": "x" * 1000}))
    with sending(no_kafka.model_copy(update={"send_capacity_bytes": 4096})) as sender:
        assert 0 < sender.offer([record] * 5) < 5


@pytest.mark.guarantee("G7")
def test_an_offer_never_waits_for_kafka(no_kafka: Settings) -> None:
    """The event loop makes the offer, and must answer requests."""
    with sending(no_kafka) as sender:
        start = time.monotonic()
        sender.offer([encode_kafka(an_event())])
        assert time.monotonic() - start < 1.0


@pytest.mark.guarantee("G7")
def test_closing_without_kafka_ends(no_kafka: Settings) -> None:
    sender = Sender(no_kafka)
    sender.offer([encode_kafka(an_event())])
    start = time.monotonic()
    sender.close(1.0)
    assert time.monotonic() - start < 10.0


@pytest.mark.guarantee("R7")
async def test_a_record_that_kafka_refuses_does_not_harm_other_records(settings: Settings) -> None:
    """A record over the limit of the producer gets an error. The same producer sends the records beside it."""
    large = encode_kafka(an_event(payload={"text": "x" * (settings.max_record_bytes + 10_000)}))
    with sending(settings) as sender:
        outcomes = await sender.send([encode_kafka(an_event()), large, encode_kafka(an_event())])
    assert outcomes[0] is None
    assert isinstance(outcomes[1], TooLarge)
    assert outcomes[2] is None


@pytest.mark.guarantee("G7")
async def test_the_number_of_threads_does_not_grow_with_the_records(settings: Settings) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    with sending(settings) as sender:
        await sender.send([encode_kafka(an_event())])
        before = threads()
        await sender.send([encode_kafka(event) for event in some_events(500)])
        assert threads() <= before


async def test_the_queue_is_empty_after_the_acknowledgements(settings: Settings) -> None:
    with sending(settings) as sender:
        sender.offer([encode_kafka(event) for event in some_events(100)])
        assert sender.flush(20.0)
    assert len(records_in(settings, 100)) == 100
