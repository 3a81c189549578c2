"""An accepted event stays equal in every encoding, and an altered event is noticed."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

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
from tests.strategies import (
    NOW,
    Attributes,
    accepted,
    attributes,
    binary,
    events,
    orders,
    payloads,
    read,
    structured,
    texts,
)
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.cloudevents.encode import (
    MAX_ATTRIBUTES_BYTES,
    attributes_of,
    encode_http,
    encode_kafka,
    redrive_record,
)
from twofold.event.metadata import RESERVED_ATTRIBUTES
from twofold.event.model import Event
from twofold.mongo.documents import encode_document, event_of

pytestmark = pytest.mark.guarantee("R5", "R26")

# --- round trips ---------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(attributes(), payloads, orders)
@example({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, {"a": {"$ref": "c", "$id": 1, "$db": None}}, 0)
@example(
    {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, {"a": -0.0, "b": 5e-324, "c": 1e308}, 2**53 + 1
)
def test_an_accepted_event_is_equal_after_every_hop(
    attributes: Attributes, payload: dict[str, Any], order: int
) -> None:
    """HTTP, BSON, Kafka and KafkaSource's request keep the event and its digest. The hops after HTTP keep its order."""
    given_ = read(binary(attributes, payload))
    event = accepted(given_, order)
    stored = event_of(encode_document(event.to_document()))
    delivered_event = decode_kafka(*through_kafka_source(encode_kafka(stored)))

    assert same(read(structured(attributes, payload)), given_)
    assert given_.digest == event.digest
    assert same(stored, event)
    assert same(delivered_event.event, event)
    assert (delivered_event.partition, delivered_event.offset) == (3, 2**40)
    assert text(event.payload) == text(payload)


@settings(max_examples=200, deadline=None)
@given(events)
def test_an_event_is_equal_after_http(event: Event) -> None:
    headers, body = encode_http(event)

    again = read((raw(headers), body))

    assert again.order is None
    assert same(accepted(again, event.order), event)


@settings(max_examples=100, deadline=None)
@given(events)
def test_a_delivery_has_every_attribute_once(event: Event) -> None:
    """KafkaSource adds only the record's partition and offset."""
    headers, _ = through_kafka_source(encode_kafka(event))

    carried = {name[3:].decode(): value.decode() for name, value in headers if name.startswith(b"ce-")}
    assert ("twofoldexact" in carried) == (event.metadata.original_time is not None)
    carried.pop("twofoldexact", None)
    time = attributes_of(event)["time"]
    written_by_java = {"time": java_time(time), "knativekafkapartition": "3", "knativekafkaoffset": str(2**40)}
    assert carried == attributes_of(event) | written_by_java


@settings(max_examples=100, deadline=None)
@given(attributes(), payloads, st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)))  # noqa: DTZ001 - `timezones` gives the zone
def test_a_retry_without_time_has_the_same_digest_at_any_time(
    attributes: Attributes, payload: dict[str, Any], later: datetime
) -> None:
    attributes.pop("time", None)

    first, retry = read(binary(attributes, payload), NOW), read(structured(attributes, payload), later)

    assert retry.digest == first.digest
    assert first.timestamp == NOW.replace(microsecond=123000)


def test_an_assigned_time_and_the_same_given_time_have_different_digests() -> None:
    """Otherwise a producer could claim a time that only the clock of `publish` gave."""
    attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    assigned = read(structured(attributes, {}))
    given_time = read(structured(attributes | {"time": assigned.time}, {}))

    assert given_time.timestamp == assigned.timestamp
    assert given_time.digest != assigned.digest


@settings(max_examples=100, deadline=None)
@given(events, st.text(max_size=9))
def test_publish_and_store_read_a_replayed_event_equally(event: Event, replay_id: str) -> None:
    """The digest is the first one, with or without a given time: it leaves `replayid` out."""
    attributes = values_of(event) | {"replayid": replay_id}

    outcome = decode_http(*structured(attributes, event.payload), NOW, 1)

    assert isinstance(outcome, IncomingEvent)
    assert same(outcome.event, event)
    assert outcome.replay_id == replay_id
    at_store = decode_kafka(*delivered(event, replayid="r"))
    assert same(at_store.event, event)
    assert at_store.replay_id == "r"


@pytest.mark.guarantee("G1")
def test_store_reads_the_most_attributes_that_publish_accepts() -> None:
    """The hops add attributes. If `store` rejected the event, the relay would send it again and again."""
    event = with_headers_of(MAX_ATTRIBUTES_BYTES)
    added = {"redriveof": str(event.event_id), "replayid": str(event.event_id)}

    headers, body = delivered(event, 2**31 - 1, 2**63 - 1, **added)

    assert same(decode_kafka(headers, body).event, event)
    assert same(decode_kafka(headers, b" " + body).event, event), "in the full check too"
    replayed = decode_http(*structured(values_of(event) | {"replayid": "r"}, event.payload), NOW, 1)
    assert isinstance(replayed, IncomingEvent)
    assert same(replayed.event, event)


def test_the_key_of_a_record_is_the_aggregate() -> None:
    assert encode_kafka(an_event(aggregate_id="order-7")).key == b"order-7"


def test_the_key_of_a_record_without_an_aggregate_is_the_id() -> None:
    event = an_event(aggregate_id=None)

    assert encode_kafka(event).key == event.id.encode()


@pytest.mark.parametrize("subject", ["order-7", "日本", " a ", None])
def test_a_redriven_record_has_its_first_key(subject: str | None) -> None:
    """KafkaSource damages a header beyond Latin-1. With that key, the aggregate would change its partition."""
    event = an_event(aggregate_id=subject, id="é€")
    headers, body = through_kafka_source(encode_kafka(event))
    kept = {"_id": uuid4(), "headers": [{"name": n.decode(), "value": v} for n, v in headers], "body": body}

    assert redrive_record(kept).key == (subject or "é€").encode() == encode_kafka(event).key


def test_a_redriven_record_of_another_program_keeps_its_header() -> None:
    forged = [{"name": "ce-id", "value": b"7"}, {"name": "ce-twofoldexact", "value": b"no JSON"}]

    assert redrive_record({"_id": uuid4(), "headers": forged, "body": b""}).key == b"7"


@settings(max_examples=50, deadline=None)
@given(events)
def test_the_size_of_a_record_is_an_upper_bound(event: Event) -> None:
    record = encode_kafka(event)

    assert record.size > len(record.key + record.value) + sum(len(name) + len(value) for name, value in record.headers)


@settings(max_examples=50, deadline=None)
@given(events)
def test_no_header_of_a_record_is_null_or_empty(event: Event) -> None:
    """A null header can make KafkaSource lose the whole batch."""
    assert all(value for _, value in encode_kafka(event).headers)


@settings(max_examples=50, deadline=None)
@given(events)
def test_a_producers_request_has_no_reserved_attribute(event: Event) -> None:
    headers, _ = encode_http(event)

    assert not {f"ce-{name}" for name in RESERVED_ATTRIBUTES} & headers.keys()


# --- against the CloudEvents SDK -------------------------------------------------------------------------------------

_PLAIN = texts.filter(lambda text: "%" not in text and not (text[0] == text[-1] == '"'))
"""Text without escapes: version 1.12 of the SDK neither writes nor reads the escapes of CloudEvents' HTTP binding."""


@settings(max_examples=150, deadline=None)
@given(attributes(_PLAIN), payloads)
def test_binary_requests_of_the_sdk_are_read_with_equal_values(given_: Attributes, payload: dict[str, Any]) -> None:
    assume(not any("%" in given_.get(name, "") for name in ("source", "dataschema", "type")))
    assume(not given_["type"].startswith('"'))
    headers, body = to_binary(CloudEvent(given_ | {"time": "2026-07-01T00:00:00Z"}, payload))

    event = read((raw(headers), body))

    assert values_of(event) == expected(given_, event)
    assert text(event.payload) == text(payload)


@settings(max_examples=150, deadline=None)
@given(attributes(), payloads)
def test_structured_requests_of_the_sdk_are_read_with_equal_values(given_: Attributes, payload: dict[str, Any]) -> None:
    headers, body = to_structured(CloudEvent(given_ | {"time": "2026-07-01T00:00:00Z"}, payload))

    event = read((raw(headers), body))

    assert values_of(event) == expected(given_, event)
    assert text(event.payload) == text(payload)


def test_base64_of_the_sdk_is_read() -> None:
    """The SDK writes bytes as `data_base64`."""
    for content_type, payload in ((None, b'{"a":1}'), ("text/json", {"a": 1}), ("text/plain", '{"a":1}')):
        typed = {"datacontenttype": content_type} if content_type else {}
        headers, body = to_structured(CloudEvent({"type": "t", "source": "/s"} | typed, b'{"a":1}'))

        assert read((raw(headers), body)).payload == payload


@settings(max_examples=150, deadline=None)
@given(events)
def test_the_sdk_reads_our_http_requests_with_equal_values(event: Event) -> None:
    headers, body = encode_http(event)
    by_sdk = sdk_from_http(headers, body)

    read_by_sdk = {name: unquote(str(value)) for name, value in by_sdk.get_attributes().items()}
    if event.metadata.time_assigned:
        del read_by_sdk["time"]  # the SDK's clock gives it
    ours = {name: value for name, value in values_of(event).items() if name not in RESERVED_ATTRIBUTES}
    if event.metadata.time_assigned:
        del ours["time"]
    assert read_by_sdk == ours
    assert text(by_sdk.get_data()) == text(event.payload)


@settings(max_examples=150, deadline=None)
@given(events)
def test_the_sdk_reads_our_kafka_records_with_equal_values(event: Event) -> None:
    """The SDK takes `partitionkey` from the key of the record, so the test leaves it out."""
    record = encode_kafka(event)
    by_sdk = sdk_from_kafka(KafkaMessage(dict(record.headers), record.key, record.value))

    attributes = dict(by_sdk.get_attributes())
    assert attributes.pop("partitionkey") == record.key
    attributes.pop("twofoldexact", None)
    ours = values_of(event)
    ours.pop("partitionkey", None)
    assert attributes == ours
    assert text(by_sdk.get_data()) == text(event.payload)


@settings(max_examples=100, deadline=None)
@given(events)
def test_the_sdk_writes_the_same_kafka_headers(event: Event) -> None:
    """Two defects of the SDK are left out: it needs a data content type, and it never writes `partitionkey`."""
    by_sdk = sdk_to_kafka(CloudEvent(values_of(event), event.payload), key_mapper=lambda _: event.aggregate_id or "")

    ours = dict(encode_kafka(event).headers)
    ours.pop("ce_partitionkey", None)
    ours.pop("ce_twofoldexact", None)
    assert by_sdk.headers == ours
    assert json.loads(by_sdk.value) == event.payload


@settings(max_examples=50, deadline=None)
@given(events)
def test_the_sdk_reads_our_attributes_in_the_json_format(event: Event) -> None:
    by_sdk = from_json(json.dumps(values_of(event) | {"data": event.payload}))

    assert by_sdk.get_attributes() == values_of(event)


def values_of(event: Event) -> Attributes:
    """Return the attributes with the content type."""
    return attributes_of(event) | {"datacontenttype": encode_http(event)[0]["content-type"]}


def expected(given_: Attributes, event: Event) -> Attributes:
    """Return the attributes that the decoded event must have. Other tests check the digest."""
    content_type = given_.get("datacontenttype", "application/json")
    fixed = {"time": "2026-07-01T00:00:00.000Z", "datacontenttype": content_type, "twofolddigest": event.digest.hex()}
    same_version = given_.get("eventversion") == "1.0"  # the default
    return {name: value for name, value in (given_ | fixed).items() if not (same_version and name == "eventversion")}
