"""`store` notices every alteration, and accepts no event that it could not read back, even with a correct digest."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dev.kafka_source.event import SourceName, to_event
from tests.carried import SINK, FakeRecord, Request, raw, same, text, through_kafka_source
from tests.helpers import Raw, an_event, delivered
from tests.strategies import Attributes, attributes, events, payloads, read, texts
from twofold.cloudevents.attributes import content_fields, pop_internal_attributes, read_headers
from twofold.cloudevents.decode_kafka import _raw_value, _verified_document, decode_kafka, kafka_coordinates
from twofold.cloudevents.encode import encode_http, encode_kafka
from twofold.errors import DigestMismatch, Malformed, Rejected
from twofold.event.data import NO_ENCODED_DATA, EncodedData
from twofold.event.digest import HOP_ATTRIBUTES, compute_digest
from twofold.event.model import Event
from twofold.mongo.documents import encode_document, event_of

pytestmark = pytest.mark.guarantee("R5", "R26")

# --- altered on the way ----------------------------------------------------------------------------------------------

_UNSIGNED = {b"ce-traceparent", b"ce-twofoldorder", b"ce-knativekafkapartition", b"ce-knativekafkaoffset"}
"""Attributes outside the digest: of a hop, or different in every attempt."""


def meaning(event: Event) -> str:
    """Return the fields that the digest covers, as text."""
    fields = event.model_dump(mode="json")
    extensions = fields["metadata"]["extensions"]
    for name in HOP_ATTRIBUTES:
        fields["metadata"].pop(name, None)
        extensions.pop(name, None)
    del fields["order"]
    if event.metadata.time_assigned:
        del fields["timestamp"]
    return text(fields)


@settings(max_examples=400, deadline=None)
@given(events, st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(event: Event, data: st.DataObject) -> None:
    """The byte is any byte of a name, a value or the body. The digest leaves some fields out, so they may change."""
    headers, body = through_kafka_source(encode_kafka(event))
    parts = [part for header in headers for part in header] + [body]
    part = data.draw(st.integers(0, len(parts) - 1))
    assume(parts[part])
    index = data.draw(st.integers(0, min(len(parts[part]), 2000) - 1))
    byte = data.draw(st.integers(0, 255))
    parts[part] = parts[part][:index] + bytes([byte]) + parts[part][index + 1 :]

    try:
        delivered_event = decode_kafka(list(zip(parts[:-1:2], parts[1:-1:2], strict=True)), parts[-1])
    except Rejected:
        return
    assert delivered_event.event.digest == event.digest
    assert meaning(delivered_event.event) == meaning(event)


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
        "data_content_type": "text/json",
        "extensions": {"tenant": "t", "dataschema": "/schema"},
    }
)


@pytest.mark.parametrize("name", [pytest.param(name, id=name.decode()) for name in _headers_of(_FULL)])
def test_another_value_of_an_attribute_is_noticed(name: bytes) -> None:
    headers, body = delivered(_FULL)
    other = {b"ce-time": b"2026-01-01T00:00:00Z", b"content-type": b"application/a+json"}.get(name, b"other")

    with pytest.raises(Rejected):
        decode_kafka([(n, other if n == name else value) for n, value in headers], body)


@pytest.mark.parametrize("name", [pytest.param(name, id=name.decode()) for name in _headers_of(_FULL)])
def test_a_lost_attribute_is_noticed(name: bytes) -> None:
    headers, body = delivered(_FULL)

    with pytest.raises(Rejected):
        decode_kafka([(n, value) for n, value in headers if n != name], body)


def test_an_added_attribute_is_noticed() -> None:
    headers, body = delivered(_FULL)

    with pytest.raises(DigestMismatch):
        decode_kafka([*headers, (b"ce-added", b"1")], body)


@pytest.mark.parametrize("body", [b"{}", b'{"total":3.0}', b'{"total":"3"}', b'{"total":3,"x":null}', b'{"Total":3}'])
def test_another_payload_is_noticed(body: bytes) -> None:
    headers, _ = delivered(_FULL)

    with pytest.raises(DigestMismatch):
        decode_kafka(headers, body)


def test_white_space_in_the_body_does_not_change_the_digest() -> None:
    """Java's SDK writes JSON anew for a structured record. The digest covers values, not bytes."""
    headers, _ = delivered(_FULL)

    assert same(decode_kafka(headers, b' {\n"total" : 3 } ').event, _FULL)


def test_another_traceparent_does_not_change_the_digest() -> None:
    headers, body = delivered(_FULL)
    traced = [(name, b"00-3-4-00" if name == b"ce-traceparent" else value) for name, value in headers]

    delivered_event = decode_kafka(traced, body)

    assert delivered_event.event.digest == _FULL.digest
    assert delivered_event.event.metadata.traceparent == "00-3-4-00"


def test_another_assigned_time_does_not_change_the_digest() -> None:
    event = an_event(metadata={"service_name": "/shop", "time_assigned": True})
    headers, body = delivered(event)
    later = [(name, b"2030-01-01T00:00:00Z" if name == b"ce-time" else value) for name, value in headers]

    assert decode_kafka(later, body).event.digest == event.digest


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"-1", b"+1", b"01", b"00", b"1.0", b"1e3", b"0x1", b"1_0", b" 1", b"1 ", b"1\n", b"null", b"True"),
        *(str(2**63).encode(), b"9" * 19, b"9" * 5000, "\u0661".encode(), "\u00b2".encode("latin-1")),
    ],
)
def test_an_order_of_another_form_is_refused(value: bytes) -> None:
    """A program with access to the topic could write it. MongoDB could not store a larger number."""
    headers, body = delivered(an_event())

    with pytest.raises(Malformed) as refused:
        decode_kafka([(n, value if n == b"ce-twofoldorder" else v) for n, v in headers], body)
    assert refused.value.problems[0].where == "twofoldorder"


@pytest.mark.parametrize("order", [0, 1, 2**53 + 1, 2**63 - 1])
def test_every_order_of_63_bits_is_read(order: int) -> None:
    event = an_event(order=order)

    assert decode_kafka(*delivered(event)).document["order"] == order
    assert decode_kafka(*delivered(event)[:1], b" " + delivered(event)[1]).event.order == order, "in the full check"


def test_a_record_without_an_order_is_refused() -> None:
    headers, body = delivered(an_event(order=None))

    with pytest.raises(Malformed, match="only records that Twofold wrote"):
        decode_kafka(headers, body)


@pytest.mark.parametrize("value", [b"false", b"True", b"1", b""])
def test_timeassigned_must_be_true_or_absent(value: bytes) -> None:
    event = an_event(metadata={"service_name": "/shop", "time_assigned": True})
    headers, body = delivered(event)

    with pytest.raises(Malformed):
        decode_kafka([(n, value if n == b"ce-twofoldtimeassigned" else v) for n, v in headers], body)


def test_a_record_that_twofold_did_not_write_is_rejected() -> None:
    """KafkaSource makes an event of a plain record, and this event has no digest."""
    record = FakeRecord(b"key", b"{}", [])
    request = Request(SINK.request(to_event(record, SourceName("local", "store"))))

    with pytest.raises(Malformed, match="only records that Twofold wrote"):
        decode_kafka(request.headers, request.body)


def test_store_does_not_decode_percent_signs() -> None:
    """KafkaSource writes attributes unchanged. Producers percent-encode them, so `publish` decodes them."""
    event = an_event(aggregate_id='"50%25"')

    assert decode_kafka(*delivered(event)).event.aggregate_id == '"50%25"'
    assert read((raw(encode_http(event)[0]), encode_http(event)[1])).aggregate_id == '"50%25"'


@pytest.mark.parametrize(
    ("value", "coordinate"), [(b"0", 0), (b"12", 12), (b"", None), (b"-1", None), (b"x", None), (b"9" * 30, None)]
)
def test_invalid_coordinates_are_absent(value: bytes, coordinate: int | None) -> None:
    headers = [(b"ce-knativekafkapartition", value), (b"ce-knativekafkaoffset", value)]

    assert kafka_coordinates(headers) == (coordinate, coordinate)


# --- made by another program, with a correct digest -----------------------------------------------------------------

_PLAIN_EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-07-01T00:00:00.000Z"}


def with_digest(attributes: Attributes, body: bytes) -> tuple[Raw, bytes]:
    """Return the request with a correct digest."""
    data = EncodedData(b"json", body) if body else NO_ENCODED_DATA
    content = content_fields(attributes, assigned=False)
    digest = compute_digest(attributes["id"], content, data, attributes["time"]).hex()
    attributes = attributes | {"twofolddigest": digest, "twofoldorder": "7"}
    headers = [(f"ce-{name}".encode("latin-1"), value.encode("latin-1")) for name, value in attributes.items()]
    return [*headers, (b"content-type", b"application/json")], body


def test_a_usual_record_passes_the_fast_check() -> None:
    """Two spaces in a value and a number with an exponent need the full check."""
    for event in (_FULL, an_event(payload={"a": [1, -2.5, {"b": "\u2028é😀\n"}], "c": None}, aggregate_id="a  b")):
        headers, body = delivered(event)
        attributes, content_type = read_headers(headers, decode=_raw_value)
        internal = pop_internal_attributes(attributes.copy())
        for name in ("twofolddigest", "twofoldorder", "knativekafkapartition", "knativekafkaoffset"):
            del attributes[name]
        attributes["datacontenttype"] = content_type
        document = _verified_document(attributes, internal, body)
        assert (document is None) == (event.aggregate_id == "a  b")
    exponent = an_event(payload={"a": 1e-05})
    assert same(decode_kafka(*delivered(exponent)).event, exponent)


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    "body",
    [b"[1e999]", b'"\\ud800"', b'{"a":1e999}', b'{"a":-1e999}', b'{"a":1,"a":2}', b'{"a":NaN}'],
)
def test_an_invalid_payload_is_rejected_in_spite_of_its_digest(body: bytes) -> None:
    """In the log, it would stay unreadable for ever."""
    with pytest.raises(Rejected):
        decode_kafka(*with_digest(_PLAIN_EVENT, body))


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "order\x85created"},
        {"type": "t" * 1025},
        {"source": "/a b"},
        {"source": "http://[::"},
        {"subject": ""},
        {"subject": "\x9f"},
        {"x": "sealed:v1:"},
        {"subject": "a\tb"},
        {"id": "1\n"},
        {"redriveof": "\n", "x": "\n"},
        {"traceparent": "\x7f"},
        {"tenant": "x" * 1025},
        {"Tenant": "t"},
        {"x" * 41: "t"},
        {"data": "t"},
        {"dataschema": "a b"},
    ],
    ids=lambda wrong: ascii(wrong)[:30],
)
def test_invalid_attributes_are_rejected_in_spite_of_their_digest(wrong: Attributes) -> None:
    with pytest.raises(Rejected):
        decode_kafka(*with_digest(_PLAIN_EVENT | wrong, b"{}"))


_ANY_VALUE = st.one_of(texts, st.text(st.characters(max_codepoint=255), max_size=5))


@settings(max_examples=300, deadline=None)
@given(
    attributes(),
    st.dictionaries(st.sampled_from([*_PLAIN_EVENT, "subject", "userid", "x", "X", "dataschema"]), _ANY_VALUE),
    st.one_of(payloads.map(lambda payload: json.dumps(payload).encode()), st.binary(max_size=9)),
)
def test_every_accepted_event_can_be_read_back(given_: Attributes, odd: Attributes, body: bytes) -> None:
    usual = {name: value for name, value in given_.items() if name != "datacontenttype"} | {
        "time": _PLAIN_EVENT["time"]
    }
    try:
        delivered_event = decode_kafka(*with_digest(usual | odd, body))
        document = encode_document(delivered_event.document)
    except Rejected:
        return
    assert event_of(document) == delivered_event.event
