"""An accepted event stays the same event, whatever carries it; what is altered on the way is noticed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from httptools import HttpRequestParser
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dev.kafka_source_event import SourceName, to_event
from dev.kafka_source_http import Destination
from dev.kafka_source_java import java_time
from tests.helpers import Raw, an_event, delivered, with_headers_of
from tests.helpers import structured as as_structured
from tests.strategies import NOW, Attributes, attributes, binary, events, payloads, read, structured, texts
from twofold import delivery, mongo, receiving
from twofold.attributes import event_from, in_headers, own_of, said_of
from twofold.cloudevents import MAX_ATTRIBUTES_BYTES, RESERVED, Record, Written, attributes_of, to_http, to_kafka
from twofold.delivery import from_kafka_source, kafka_coordinates
from twofold.errors import DigestMismatch, Malformed, Rejected
from twofold.event import Event, digest_of
from twofold.receiving import Received, from_http

pytestmark = pytest.mark.guarantee("R5", "R26")

SINK = Destination("http://store.local/", "local", 1.0)


@dataclass
class FakeRecord:
    """A record as the KafkaSource stand-in gets it from Kafka."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    topic: str = "twofold.events"
    partition: int = 3
    offset: int = 2**40
    timestamp: int = 0


class _Request:
    """A request as uvicorn's parser reads it."""

    def __init__(self, request: bytes) -> None:
        self.headers: Raw = []
        self.body = b""
        self.complete = False
        HttpRequestParser(self).feed_data(request)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def through_kafka_source(record: Record) -> tuple[Raw, bytes]:
    """The request that reaches `store`, by the rules of the real source."""
    consumed = FakeRecord(record.key, record.value, [*record.headers])
    request = _Request(SINK.request(to_event(consumed, SourceName("local", "store"))))
    assert request.complete
    return request.headers, request.body


def raw(headers: Mapping[str, str]) -> Raw:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def text(payload: object) -> str:
    """JSON, which tells -0.0 from 0.0 and 1 from 1.0, without the order of names."""
    return json.dumps(payload, sort_keys=True)


def same(one: Event, other: Event) -> bool:
    """Equal to the kinds of numbers and the signs of zeros, which `==` does not see."""
    return one == other and text(one.payload) == text(other.payload) and one.digest == other.digest


# --- there and back --------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(attributes(), payloads)
@example({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, {"a": {"$ref": "c", "$id": 1, "$db": None}})
@example({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, {"a": -0.0, "b": 5e-324, "c": 1e308})
def test_an_accepted_event_survives_the_whole_way(attributes: Attributes, payload: dict[str, Any]) -> None:
    """HTTP, BSON, Kafka, KafkaSource's request: after each the same event with the same digest."""
    accepted = read(binary(attributes, payload))
    stored = mongo.event_of(mongo.encode(accepted.document()))
    received = from_kafka_source(*through_kafka_source(to_kafka(stored)))

    assert same(read(structured(attributes, payload)), accepted)
    assert same(stored, accepted)
    assert same(received.event, accepted)
    assert (received.partition, received.offset) == (3, 2**40)
    assert text(accepted.payload) == text(payload)


@settings(max_examples=200, deadline=None)
@given(events)
def test_what_we_send_over_http_we_read_to_the_same_event(event: Event) -> None:
    headers, body = to_http(event)

    again = read((raw(headers), body))

    assert same(again, event)


@settings(max_examples=100, deadline=None)
@given(events)
def test_all_attributes_come_out_as_they_went_in(event: Event) -> None:
    """What KafkaSource delivers holds each attribute once, and nothing else but where the record lay."""
    headers, _ = through_kafka_source(to_kafka(event))

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

    outcome = from_http(*structured(attributes, event.payload), NOW, 1)

    assert isinstance(outcome, Received)
    assert same(outcome.event, event)
    assert outcome.replay_id == replay_id
    at_store = from_kafka_source(*delivered(event, replayid="r"))
    assert same(at_store.event, event)
    assert at_store.replay_id == "r"


@pytest.mark.guarantee("G1")
def test_the_most_attributes_that_are_accepted_are_read_by_store_with_all_that_is_added_on_the_way() -> None:
    """Refused there, the event would be sent again for ever."""
    event = with_headers_of(MAX_ATTRIBUTES_BYTES)
    added = {"redriveof": str(event.event_id), "replayid": str(event.event_id)}

    headers, body = delivered(event, 2**31 - 1, 2**63 - 1, **added)

    assert same(from_kafka_source(headers, body).event, event)
    assert same(from_kafka_source(headers, b" " + body).event, event), "also when it looks closer"
    replayed = from_http(*structured(values_of(event) | {"replayid": "r"}, event.payload), NOW, 1)
    assert isinstance(replayed, Received)
    assert same(replayed.event, event)


def test_the_key_is_the_aggregate_so_that_it_stays_in_one_partition() -> None:
    assert to_kafka(an_event(aggregate_id="order-7")).key == b"order-7"


def test_without_an_aggregate_the_key_is_the_event_itself() -> None:
    event = an_event(aggregate_id=None)

    assert to_kafka(event).key == str(event.event_id).encode()


@settings(max_examples=50, deadline=None)
@given(events)
def test_the_size_of_a_record_is_no_less_than_its_bytes(event: Event) -> None:
    record = to_kafka(event)

    assert record.size > len(record.key + record.value) + sum(len(name) + len(value) for name, value in record.headers)


@settings(max_examples=50, deadline=None)
@given(events)
def test_no_header_of_a_record_is_null_or_empty(event: Event) -> None:
    """KafkaSource can lose the batch around a null header."""
    assert all(value for _, value in to_kafka(event).headers)


@settings(max_examples=50, deadline=None)
@given(events)
def test_a_producer_sends_none_of_our_own_attributes(event: Event) -> None:
    headers, _ = to_http(event)

    assert not {f"ce-{name}" for name in RESERVED} & headers.keys()


# --- altered on the way ----------------------------------------------------------------------------------------------

_UNSIGNED = {b"ce-traceparent", b"ce-knativekafkapartition", b"ce-knativekafkaoffset"}
"""Says nothing about the event, or changes with each attempt."""


def meaning(event: Event) -> str:
    """All that the digest vouches for, in words of its own."""
    fields = event.model_dump(mode="json")
    fields["metadata"].pop("traceparent")
    if event.metadata.time_assigned:
        del fields["timestamp"]
    return text(fields)


@settings(max_examples=400, deadline=None)
@given(events, st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(event: Event, data: st.DataObject) -> None:
    """Any byte of any name, value or body, but for what the digest is documented to leave out."""
    headers, body = through_kafka_source(to_kafka(event))
    parts = [part for header in headers for part in header] + [body]
    which = data.draw(st.integers(0, len(parts) - 1))
    assume(parts[which])
    where = data.draw(st.integers(0, min(len(parts[which]), 2000) - 1))
    byte = data.draw(st.integers(0, 255))
    parts[which] = parts[which][:where] + bytes([byte]) + parts[which][where + 1 :]

    try:
        received = from_kafka_source(list(zip(parts[:-1:2], parts[1:-1:2], strict=True)), parts[-1])
    except Rejected:
        return
    assert received.event.digest == event.digest
    assert meaning(received.event) == meaning(event)


def _headers_of(event: Event) -> list[bytes]:
    return [name for name, _ in delivered(event)[0] if name not in _UNSIGNED]


_FULL = an_event(
    metadata={
        "service_name": "/shop",
        "service_version": "1",
        "correlation_id": "c",
        "causation_id": "d",
        "user_id": "u",
        "environment": "e",
        "ip_address": "10.0.0.1",
        "user_agent": "a",
        "traceparent": "00-1-2-01",
        "extensions": {"tenant": "t", "dataschema": "/schema", "datacontenttype": "text/json"},
    }
)


@pytest.mark.parametrize("name", [pytest.param(name, id=name.decode()) for name in _headers_of(_FULL)])
def test_another_value_of_an_attribute_is_noticed(name: bytes) -> None:
    headers, body = delivered(_FULL)
    other = {b"ce-time": b"2026-01-01T00:00:00Z", b"content-type": b"application/a+json"}.get(name, b"other")

    with pytest.raises(Rejected):
        from_kafka_source([(n, other if n == name else value) for n, value in headers], body)


@pytest.mark.parametrize("name", [pytest.param(name, id=name.decode()) for name in _headers_of(_FULL)])
def test_a_lost_attribute_is_noticed(name: bytes) -> None:
    headers, body = delivered(_FULL)

    with pytest.raises(Rejected):
        from_kafka_source([(n, value) for n, value in headers if n != name], body)


def test_an_added_attribute_is_noticed() -> None:
    headers, body = delivered(_FULL)

    with pytest.raises(DigestMismatch):
        from_kafka_source([*headers, (b"ce-added", b"1")], body)


@pytest.mark.parametrize("body", [b"{}", b'{"total":3.0}', b'{"total":"3"}', b'{"total":3,"x":null}', b'{"Total":3}'])
def test_another_payload_is_noticed(body: bytes) -> None:
    headers, _ = delivered(_FULL)

    with pytest.raises(DigestMismatch):
        from_kafka_source(headers, body)


def test_white_space_in_the_body_is_no_change() -> None:
    """Java's SDK writes JSON anew for a structured record; the digest is of the values."""
    headers, _ = delivered(_FULL)

    assert same(from_kafka_source(headers, b' {\n"total" : 3 } ').event, _FULL)


def test_another_traceparent_is_the_same_event() -> None:
    headers, body = delivered(_FULL)
    traced = [(name, b"00-3-4-00" if name == b"ce-traceparent" else value) for name, value in headers]

    received = from_kafka_source(traced, body)

    assert received.event.digest == _FULL.digest
    assert received.event.metadata.traceparent == "00-3-4-00"


def test_an_assigned_time_may_differ_since_the_digest_leaves_it_out() -> None:
    event = an_event(metadata={"service_name": "/shop", "time_assigned": True})
    headers, body = delivered(event)
    later = [(name, b"2030-01-01T00:00:00Z" if name == b"ce-time" else value) for name, value in headers]

    assert from_kafka_source(later, body).event.digest == event.digest


@pytest.mark.parametrize("value", [b"false", b"True", b"1", b""])
def test_the_mark_of_an_assigned_time_is_true_or_absent(value: bytes) -> None:
    event = an_event(metadata={"service_name": "/shop", "time_assigned": True})
    headers, body = delivered(event)

    with pytest.raises(Malformed):
        from_kafka_source([(n, value if n == b"ce-timeassigned" else v) for n, v in headers], body)


def test_a_record_that_is_not_ours_is_refused() -> None:
    """A plain record, which KafkaSource made into an event, has no digest."""
    record = FakeRecord(b"key", b"{}", [])
    request = _Request(SINK.request(to_event(record, SourceName("local", "store"))))

    with pytest.raises(Malformed, match="no digest"):
        from_kafka_source(request.headers, request.body)


def test_store_takes_percent_signs_as_they_are() -> None:
    """KafkaSource writes attributes raw; `publish` decodes them, since producers encode them."""
    event = an_event(aggregate_id='"50%25"')

    assert from_kafka_source(*delivered(event)).event.aggregate_id == '"50%25"'
    assert read((raw(to_http(event)[0]), to_http(event)[1])).aggregate_id == '"50%25"'


@pytest.mark.parametrize(
    ("value", "coordinate"), [(b"0", 0), (b"12", 12), (b"", None), (b"-1", None), (b"x", None), (b"9" * 30, None)]
)
def test_coordinates_are_numbers_that_mongodb_can_hold_or_absent(value: bytes, coordinate: int | None) -> None:
    headers = [(b"ce-knativekafkapartition", value), (b"ce-knativekafkaoffset", value)]

    assert kafka_coordinates(headers) == (coordinate, coordinate)


# --- made by somebody else, with a digest that fits -------------------------------------------------------------------

_PLAIN_EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-07-01T00:00:00.000Z"}


def vouched(attributes: Attributes, body: bytes) -> tuple[Raw, bytes]:
    """The request with the digest that `publish` would make of these, had it taken them."""
    _, id_text, said = said_of(attributes, assigned=False)
    digest = digest_of(id_text, said, body, attributes["time"]).hex()
    headers = attributes | {"digest": digest}
    return [(f"ce-{name}".encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()], body


def test_what_publish_sends_is_not_checked_twice() -> None:
    """But for numbers that pydantic writes otherwise than Python."""
    for event in (_FULL, an_event(payload={"a": [1, -2.5, {"b": "\u2028é😀\n"}], "c": None}, aggregate_id="a  b")):
        headers, body = delivered(event)
        attributes, content_type = in_headers(headers, decode=delivery._raw_value)
        own = own_of(attributes | {"datacontenttype": content_type})
        del attributes["digest"]
        attributes["datacontenttype"] = content_type
        document = delivery._vouched_document(attributes, own, body)
        assert (document is None) == (event.aggregate_id == "a  b")
    exponent = an_event(payload={"a": 1e-05})
    assert same(from_kafka_source(*delivered(exponent)).event, exponent)


@settings(max_examples=300, deadline=None)
@given(attributes(), payloads)
@example({**_PLAIN_EVENT, "time": "2026-07-01T00:00:00.1239+02:00", "eventversion": "1.0"}, {})
@example({**_PLAIN_EVENT, "id": str(_FULL.event_id), "knativekafkaoffset": "7", "comexampleother": "1"}, {"a": 1e-7})
@example({name: value for name, value in _PLAIN_EVENT.items() if name != "time"}, {"a": [1]})
@example({**_PLAIN_EVENT, "datacontenttype": "application/vnd.order+json", "traceparent": "t"}, {"$id": None})
def test_what_publish_writes_without_an_event_is_what_the_event_would_be_written_as(
    said: Attributes, payload: dict[str, Any]
) -> None:
    """The way that nearly all events take beside the one that judges."""
    written = receiving._soundly_written(dict(said), payload, NOW)

    assume(written is not None)
    assert written == Written.of(event_from(dict(said), payload, NOW))


@pytest.mark.parametrize("more", [{}, {"time": "2026-07-01T02:00:00+02:00"}, {"id": "order-7", "subject": "a b"}])
def test_what_publish_takes_is_not_checked_twice(more: dict[str, str]) -> None:
    assert receiving._soundly_written(_PLAIN_EVENT | more, {"a": 1.5}, NOW) is not None


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    "body", [b"[1]", b"1", b"null", b'{"a":1e999}', b'{"a":-1e999}', b'{"a":1,"a":2}', b'{"a":NaN}']
)
def test_a_payload_that_the_schema_forbids_is_refused_whoever_vouches(body: bytes) -> None:
    """In the log, it would be there for ever and could not be read."""
    with pytest.raises(Rejected):
        from_kafka_source(*vouched(_PLAIN_EVENT, body))


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "order created"},
        {"type": "t" * 1025},
        {"source": "/a b"},
        {"source": "http://[::"},
        {"subject": "a "},
        {"subject": " "},
        {"subject": ""},
        {"subject": "é"},
        {"subject": "a\tb"},
        {"id": " 1"},
        {"traceparent": "\x7f"},
        {"tenant": "x" * 1025},
        {"Tenant": "t"},
        {"x" * 41: "t"},
        {"data": "t"},
        {"dataschema": "a b"},
    ],
    ids=lambda wrong: ascii(wrong)[:30],
)
def test_attributes_that_the_schema_forbids_are_refused_whoever_vouches(wrong: Attributes) -> None:
    with pytest.raises(Rejected):
        from_kafka_source(*vouched(_PLAIN_EVENT | wrong, b"{}"))


_ANY_VALUE = st.one_of(texts, st.text(st.characters(max_codepoint=255), max_size=5))


@settings(max_examples=300, deadline=None)
@given(
    attributes(),
    st.dictionaries(st.sampled_from([*_PLAIN_EVENT, "subject", "userid", "x", "X", "dataschema"]), _ANY_VALUE),
    st.one_of(payloads.map(lambda payload: json.dumps(payload).encode()), st.binary(max_size=9)),
)
def test_whatever_store_takes_can_be_read_back(given_: Attributes, odd: Attributes, body: bytes) -> None:
    usual = {name: value for name, value in given_.items() if name != "datacontenttype"} | {
        "time": _PLAIN_EVENT["time"]
    }
    try:
        received = from_kafka_source(*vouched(usual | odd, body))
        document = mongo.encode(received.document)
    except Rejected:
        return
    assert mongo.event_of(document) == received.event


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
    headers, body = to_http(event)
    judged = sdk_from_http(headers, body)

    read_by_sdk = {name: unquote(str(value)) for name, value in judged.get_attributes().items()}
    if event.metadata.time_assigned:
        del read_by_sdk["time"]  # the SDK's own clock
    ours = {name: value for name, value in values_of(event).items() if name not in RESERVED}
    if event.metadata.time_assigned:
        del ours["time"]
    assert read_by_sdk == ours
    assert text(judged.get_data()) == text(event.payload)


@settings(max_examples=150, deadline=None)
@given(events)
def test_the_sdk_reads_our_kafka_records_to_the_same_values(event: Event) -> None:
    """But for `partitionkey`, which it takes from the key of the record."""
    record = to_kafka(event)
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

    ours = dict(to_kafka(event).headers)
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
    return attributes_of(event) | {"datacontenttype": to_http(event)[0]["content-type"]}


def expected(given_: Attributes, event: Event) -> Attributes:
    """What our reading of these must hold; the digest is judged elsewhere."""
    content_type = given_.get("datacontenttype", "application/json").partition(";")[0]
    fixed = {"time": "2026-07-01T00:00:00.000Z", "datacontenttype": content_type, "digest": event.digest.hex()}
    same_version = given_.get("eventversion") == "1.0"  # what it is if nobody says so
    return {name: value for name, value in (given_ | fixed).items() if not (same_version and name == "eventversion")}


HOP = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def hops(content_type: str, body: object, *extra: tuple[str, str]) -> list[str | None]:
    """The traceparent of each event's hop in a request that belongs to a trace."""
    headers = [("content-type", content_type), ("traceparent", HOP), *extra]
    request = [(name.encode(), value.encode()) for name, value in headers]
    received = from_http(request, json.dumps(body).encode(), NOW, 10)
    taken = [received] if isinstance(received, Received) else received
    return [each.traceparent for each in taken if isinstance(each, Received)]


def test_the_trace_of_the_request_is_that_of_the_hop_in_every_mode() -> None:
    event = an_event()
    binary_headers = [(name, value) for name, value in to_http(event)[0].items() if name != "content-type"]
    assert hops("application/json", {}, *binary_headers) == [HOP]
    assert hops("application/cloudevents+json", as_structured(event)) == [HOP]
    assert hops("application/cloudevents-batch+json", [as_structured(event)] * 2) == [HOP, HOP]


@pytest.mark.parametrize("wrong", ["", "what", f"01{HOP[2:]}x", HOP.upper(), f"00-{'0' * 32}-b7ad6b7169203331-01"])
def test_a_request_whose_trace_is_none_is_taken_as_ever(wrong: str) -> None:
    """The header is the transport's: it is no fault of the event."""
    headers, body = to_http(an_event())
    received = from_http(raw(headers | {"traceparent": wrong}), body, NOW, 1)
    assert isinstance(received, Received)
    assert received.traceparent is None
