"""An accepted event stays the same event, whatever carries it; what is altered on the way is noticed."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_json
from cloudevents.http import from_http as sdk_from_http
from cloudevents.kafka import KafkaMessage
from cloudevents.kafka import from_binary as sdk_from_kafka
from cloudevents.kafka import to_binary as sdk_to_kafka
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dev.kafka_source.java import java_time
from tests.carried import raw, same, text, through_kafka_source
from tests.helpers import an_event, delivered, with_headers_of
from tests.strategies import NOW, Attributes, attributes, binary, events, payloads, read, structured, texts
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.cloudevents.encode import (
    MAX_ATTRIBUTES_BYTES,
    RESERVED_ATTRIBUTES,
    attributes_of,
    encode_http,
    encode_kafka,
)
from twofold.event.model import Event
from twofold.mongo.documents import encode_document, event_of

pytestmark = pytest.mark.guarantee("R5", "R26")

# --- there and back --------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(attributes(), payloads)
@example({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, {"a": {"$ref": "c", "$id": 1, "$db": None}})
@example({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, {"a": -0.0, "b": 5e-324, "c": 1e308})
def test_an_accepted_event_survives_the_whole_way(attributes: Attributes, payload: dict[str, Any]) -> None:
    """HTTP, BSON, Kafka, KafkaSource's request: after each the same event with the same digest."""
    accepted = read(binary(attributes, payload))
    stored = event_of(encode_document(accepted.to_document()))
    received = decode_kafka(*through_kafka_source(encode_kafka(stored)))

    assert same(read(structured(attributes, payload)), accepted)
    assert same(stored, accepted)
    assert same(received.event, accepted)
    assert (received.partition, received.offset) == (3, 2**40)
    assert text(accepted.payload) == text(payload)


@settings(max_examples=200, deadline=None)
@given(events)
def test_what_we_send_over_http_we_read_to_the_same_event(event: Event) -> None:
    headers, body = encode_http(event)

    again = read((raw(headers), body))

    assert same(again, event)


@settings(max_examples=100, deadline=None)
@given(events)
def test_all_attributes_come_out_as_they_went_in(event: Event) -> None:
    """What KafkaSource delivers holds each attribute once, and nothing else but where the record lay."""
    headers, _ = through_kafka_source(encode_kafka(event))

    carried = {name[3:].decode(): value.decode() for name, value in headers if name.startswith(b"ce-")}
    written_by_java = {"time": java_time(event.time), "knativekafkapartition": "3", "knativekafkaoffset": str(2**40)}
    assert carried == attributes_of(event) | written_by_java


@settings(max_examples=100, deadline=None)
@given(attributes(), payloads, st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)))  # noqa: DTZ001 - the zone is beside it
def test_a_retry_without_time_is_the_same_event_under_any_clock(
    attributes: Attributes, payload: dict[str, Any], later: datetime
) -> None:
    attributes.pop("time", None)

    first, retry = read(binary(attributes, payload), NOW), read(structured(attributes, payload), later)

    assert retry.digest == first.digest
    assert first.timestamp == NOW.replace(microsecond=123000)


def test_a_time_that_the_clock_gave_is_another_event_than_one_that_the_producer_gave() -> None:
    """Else a producer could claim as its own a moment that only the clock of `publish` had."""
    attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    assigned = read(structured(attributes, {}))
    given_time = read(structured(attributes | {"time": assigned.time}, {}))

    assert given_time.timestamp == assigned.timestamp
    assert given_time.digest != assigned.digest


@settings(max_examples=100, deadline=None)
@given(events, st.text(max_size=9))
def test_a_replayed_event_is_read_by_publish_and_by_store_as_the_same(event: Event, replay_id: str) -> None:
    """Its digest is the old one, with or without a time of its own; `replayid` is no part of it."""
    attributes = values_of(event) | {"replayid": replay_id}

    outcome = decode_http(*structured(attributes, event.payload), NOW, 1)

    assert isinstance(outcome, IncomingEvent)
    assert same(outcome.event, event)
    assert outcome.replay_id == replay_id
    at_store = decode_kafka(*delivered(event, replayid="r"))
    assert same(at_store.event, event)
    assert at_store.replay_id == "r"


@pytest.mark.guarantee("G1")
def test_the_most_attributes_that_are_accepted_are_read_by_store_with_all_that_is_added_on_the_way() -> None:
    """Refused there, the event would be sent again for ever."""
    event = with_headers_of(MAX_ATTRIBUTES_BYTES)
    added = {"redriveof": str(event.event_id), "replayid": str(event.event_id)}

    headers, body = delivered(event, 2**31 - 1, 2**63 - 1, **added)

    assert same(decode_kafka(headers, body).event, event)
    assert same(decode_kafka(headers, b" " + body).event, event), "also when it looks closer"
    replayed = decode_http(*structured(values_of(event) | {"replayid": "r"}, event.payload), NOW, 1)
    assert isinstance(replayed, IncomingEvent)
    assert same(replayed.event, event)


def test_the_key_is_the_aggregate_so_that_it_stays_in_one_partition() -> None:
    assert encode_kafka(an_event(aggregate_id="order-7")).key == b"order-7"


def test_without_an_aggregate_the_key_is_the_event_itself() -> None:
    event = an_event(aggregate_id=None)

    assert encode_kafka(event).key == str(event.event_id).encode()


@settings(max_examples=50, deadline=None)
@given(events)
def test_the_size_of_a_record_is_no_less_than_its_bytes(event: Event) -> None:
    record = encode_kafka(event)

    assert record.size > len(record.key + record.value) + sum(len(name) + len(value) for name, value in record.headers)


@settings(max_examples=50, deadline=None)
@given(events)
def test_no_header_of_a_record_is_null_or_empty(event: Event) -> None:
    """KafkaSource can lose the batch around a null header."""
    assert all(value for _, value in encode_kafka(event).headers)


@settings(max_examples=50, deadline=None)
@given(events)
def test_a_producer_sends_none_of_our_own_attributes(event: Event) -> None:
    headers, _ = encode_http(event)

    assert not {f"ce-{name}" for name in RESERVED_ATTRIBUTES} & headers.keys()


# --- the CloudEvents SDK judges --------------------------------------------------------------------------------------

_PLAIN = texts.filter(lambda text: "%" not in text and not (text[0] == text[-1] == '"'))
"""What needs no escape: version 1.12 of the SDK neither writes nor reads the escapes of CloudEvents' HTTP binding."""


@settings(max_examples=150, deadline=None)
@given(attributes(_PLAIN), payloads)
def test_binary_requests_of_the_sdk_are_read_to_the_same_values(given_: Attributes, payload: dict[str, Any]) -> None:
    assume(not any("%" in given_.get(name, "") for name in ("source", "dataschema", "type")))
    assume(not given_["type"].startswith('"'))
    headers, body = to_binary(CloudEvent(given_ | {"time": "2026-07-01T00:00:00Z"}, payload))

    event = read((raw(headers), body))

    assert values_of(event) == expected(given_, event)
    assert text(event.payload) == text(payload)


@settings(max_examples=150, deadline=None)
@given(attributes(), payloads)
def test_structured_requests_of_the_sdk_are_read_to_the_same_values(
    given_: Attributes, payload: dict[str, Any]
) -> None:
    headers, body = to_structured(CloudEvent(given_ | {"time": "2026-07-01T00:00:00Z"}, payload))

    event = read((raw(headers), body))

    assert values_of(event) == expected(given_, event)
    assert text(event.payload) == text(payload)


def test_base64_of_the_sdk_is_read() -> None:
    """The SDK makes `data_base64` of bytes."""
    headers, body = to_structured(CloudEvent({"type": "t", "source": "/s"}, b'{"a":1}'))

    assert read((raw(headers), body)).payload == {"a": 1}


@settings(max_examples=150, deadline=None)
@given(events)
def test_the_sdk_reads_our_http_requests_to_the_same_values(event: Event) -> None:
    headers, body = encode_http(event)
    judged = sdk_from_http(headers, body)

    read_by_sdk = {name: unquote(str(value)) for name, value in judged.get_attributes().items()}
    if event.metadata.time_assigned:
        del read_by_sdk["time"]  # the SDK's own clock
    ours = {name: value for name, value in values_of(event).items() if name not in RESERVED_ATTRIBUTES}
    if event.metadata.time_assigned:
        del ours["time"]
    assert read_by_sdk == ours
    assert text(judged.get_data()) == text(event.payload)


@settings(max_examples=150, deadline=None)
@given(events)
def test_the_sdk_reads_our_kafka_records_to_the_same_values(event: Event) -> None:
    """But for `partitionkey`, which it takes from the key of the record."""
    record = encode_kafka(event)
    judged = sdk_from_kafka(KafkaMessage(dict(record.headers), record.key, record.value))

    attributes = dict(judged.get_attributes())
    assert attributes.pop("partitionkey") == record.key
    ours = values_of(event)
    ours.pop("partitionkey", None)
    assert attributes == ours
    assert text(judged.get_data()) == text(event.payload)


@settings(max_examples=100, deadline=None)
@given(events)
def test_the_sdk_makes_the_same_kafka_headers_as_we(event: Event) -> None:
    """Where it isn't defective: it needs a data content type, and never writes `partitionkey`."""
    judged = sdk_to_kafka(CloudEvent(values_of(event), event.payload), key_mapper=lambda _: event.aggregate_id or "")

    ours = dict(encode_kafka(event).headers)
    ours.pop("ce_partitionkey", None)
    assert judged.headers == ours
    assert json.loads(judged.value) == event.payload


@settings(max_examples=50, deadline=None)
@given(events)
def test_the_sdk_reads_our_attributes_in_the_json_format(event: Event) -> None:
    judged = from_json(json.dumps(values_of(event) | {"data": event.payload}))

    assert judged.get_attributes() == values_of(event)


def values_of(event: Event) -> Attributes:
    """All attributes, the content type included."""
    return attributes_of(event) | {"datacontenttype": encode_http(event)[0]["content-type"]}


def expected(given_: Attributes, event: Event) -> Attributes:
    """What our reading of these must hold; the digest is judged elsewhere."""
    content_type = given_.get("datacontenttype", "application/json").partition(";")[0]
    fixed = {"time": "2026-07-01T00:00:00.000Z", "datacontenttype": content_type, "digest": event.digest.hex()}
    same_version = given_.get("eventversion") == "1.0"  # what it is if nobody says so
    return {name: value for name, value in (given_ | fixed).items() if not (same_version and name == "eventversion")}
