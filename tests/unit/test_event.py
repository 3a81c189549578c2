"""The schema of an event: its identity, its digest and its allowed values."""

import contextlib
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import RFC_4122, UUID, uuid4

import pytest
from bson.int64 import Int64
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dev.kafka_source.java import java_accepts_uri, java_time
from tests.helpers import an_event
from tests.strategies import events, payloads, sources
from twofold.errors import Invalid, Rejected, TooLarge, UnsupportedType
from twofold.event.attribute import is_java_uri
from twofold.event.canonical import canonical_json
from twofold.event.data import NO_DATA
from twofold.event.identity import event_id_of, new_id, uuid_bytes
from twofold.event.media_type import parse_content_type
from twofold.event.model import Event
from twofold.mongo.documents import decode_document, encode_document
from twofold.storage.events import EventRepository

pytestmark = pytest.mark.guarantee("G2", "R26")

V4 = "7b0e9f5c-4f3a-4d27-9c56-6f5f8f0a1b2c"
V7 = "01920000-0000-7000-8000-000000000000"


def rejection(**fields: Any) -> Rejected:
    """Return the error for an event with these fields."""
    with pytest.raises(Rejected) as caught:
        an_event(**fields)
    return caught.value


def with_metadata(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"service_name": "/shop"} | metadata}


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_id", [V4, V7, "00000000-0000-0000-0000-000000000000"])
def test_a_canonical_uuid_is_stored_as_16_bytes(given_id: str) -> None:
    assert decode_document(EventRepository.encode(an_event(id=given_id).to_document(), KNOWN.timestamp))["id"] == UUID(
        given_id
    )


@pytest.mark.parametrize(
    "given_id",
    [V4.upper(), V4.replace("-", ""), f"{{{V4}}}", f"urn:uuid:{V4}", f"{V4}\n", f" {V4}", "order-7", V7[:-1] + "g"],
)
def test_another_spelling_is_stored_as_text(given_id: str) -> None:
    """CloudEvents compares ids as text, so two spellings of a UUID are two events."""
    assert uuid_bytes(given_id) is None
    assert event_id_of("/shop", given_id) != event_id_of("/shop", V4)


def test_an_identity_never_changes() -> None:
    """The log is permanent."""
    expected = hashlib.sha256(b"5:/shop7:order-7").digest()[:16]
    assert event_id_of("/shop", "order-7") == UUID(
        bytes=expected[:6]
        + bytes([0x80 | expected[6] & 15, expected[7]])
        + bytes([0x80 | expected[8] & 63])
        + expected[9:]
    )
    assert str(event_id_of("/shop", "order-7")) == "60e5b337-3844-87e3-9b68-a8acc06ea236"
    assert str(event_id_of("/shop", V7)) == "01920000-0000-82ae-a654-c1d88dedcce7"


@given(st.text(min_size=1), st.one_of(st.text(min_size=1), st.uuids().map(str)))
def test_an_identity_is_a_uuid_of_version_8(source: str, given_id: str) -> None:
    event_id = event_id_of(source, given_id)
    assert (event_id.version, event_id.variant) == (8, RFC_4122)


def test_a_uuid_of_version_7_keeps_its_time_in_front() -> None:
    """Inserts stay at one end of the index."""
    event_id = event_id_of("/shop", V7)
    assert str(event_id)[:13] == V7[:13]
    assert event_id != event_id_of("/other", V7)
    assert str(event_id_of("/shop", V4))[:13] != V4[:13]
    assert str(event_id_of("/shop", V7.upper().replace("192", "19A")))[:13] != "019a0000-0000"


def test_two_sources_with_one_uuid_are_two_events() -> None:
    first, second = (an_event(id=V4, metadata={"service_name": source}) for source in ("/a", "/b"))
    assert first.event_id != second.event_id


def test_source_and_id_are_not_mixed_up() -> None:
    pairs = [
        ("a", "b"),
        ("a,b", "x"),
        ("a", "b,c"),
        ("a,b", "c"),
        ("ab", "c"),
        ("a", "bc"),
        ("a1:b", "c"),
        ("a", "b1:c"),
    ]

    assert len({event_id_of(source, given_id) for source, given_id in pairs}) == len(pairs)


def test_a_new_id_is_a_uuid_of_version_7_with_the_time() -> None:
    now = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)
    ids = {new_id(now) for _ in range(100)}
    assert len(ids) == 100
    assert {UUID(new).version for new in ids} == {7}
    assert {int(new[:8] + new[9:13], 16) for new in ids} == {int(now.timestamp() * 1000)}


def test_a_document_with_the_identity_of_another_event_is_rejected() -> None:
    document = an_event().to_document()
    with pytest.raises(Invalid, match="made of the source and the id"):
        Event.from_document(document | {"_id": uuid4()})


# --- digest -----------------------------------------------------------------------------------------------------------

KNOWN = Event.of(
    id=V4,
    event_type="order.created",
    timestamp=datetime(2026, 7, 1, 12, 0, 0, 123999, tzinfo=UTC),
    aggregate_id="order-7",
    metadata={"service_name": "/shop", "user_id": "u", "extensions": {"tenant": "t"}},
    payload={"z": 1, "a": [1.0, -0.0, 1e22, 5e-324, 2**63 - 1, None, True, "é\0\U0001f600"], "": {"$ref": "x"}},
)


def test_the_digest_of_an_event_never_changes() -> None:
    """The digests in the log must be correct in ten years too, so the canonical form is a promise."""
    assert KNOWN.data.data.decode() == (
        '{"":{"$ref":"x"},"a":[1.0,-0.0,1e+22,5e-324,9223372036854775807,null,true,"é\\u0000\U0001f600"],"z":1}'
    )
    assert KNOWN.digest.hex() == "24fb155d647428bc2fbd78c4ff6a4caeeb1ead2a62f63e28347e0a7da7598201"


class OwnFloat(float):
    """A subclass of float, as numpy has."""


@settings(max_examples=300, deadline=None)
@given(st.one_of(payloads, st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False))))
@example({"a": 1e-05})
@example({"a": [1.5e-7]})
@example({"a": [0, -2e-10]})
@example({"a": 1e16})
@example({"a": [0.0001, 9999999999999998.0, 10.00001]})
@example({"e1": 1, "é": "2e+5", "\ufffd": 0, "\U0001f600": Int64(5)})
@example({"a": OwnFloat(3.5)})
def test_canonical_json_equals_the_standard_librarys(payload: dict[str, Any]) -> None:
    """This holds for both encoders, and for the numbers of their later releases."""
    exact = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical_json(payload) == exact.encode()


CHANGES: Mapping[str, dict[str, Any]] = {
    "id": {"id": str(uuid4())},
    "event_type": {"event_type": "order.changed"},
    "event_version": {"event_version": "1.1"},
    "timestamp": {"timestamp": KNOWN.timestamp + timedelta(milliseconds=1)},
    "aggregate_id": {"aggregate_id": None},
    "payload": {"payload": KNOWN.payload | {"z": 1.0}},
    "the sign of a zero": {"payload": KNOWN.payload | {"a": 0.0}},
    "a name": {"payload": {"Z": 1}},
    "an extension": {"metadata": KNOWN.metadata.model_copy(update={"extensions": {"tenant": "u"}})},
    "the name of an extension": {"metadata": KNOWN.metadata.model_copy(update={"extensions": {"tenants": "t"}})},
    "the source": {"metadata": KNOWN.metadata.model_copy(update={"service_name": "/shop2"})},
    "a field moved to another": {"metadata": KNOWN.metadata.model_copy(update={"user_id": None, "environment": "u"})},
    "the assigned time": {"metadata": KNOWN.metadata.model_copy(update={"time_assigned": True})},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_covers(change: str) -> None:
    assert KNOWN.model_copy(update=CHANGES[change]).digest != KNOWN.digest


def test_a_changed_copy_has_its_own_digest_and_payload() -> None:
    """Pydantic copies cached values too. With them, the two collections would have different payloads."""
    first = an_event(payload={"a": 1})
    assert first.data.data == b'{"a":1}'

    copy = first.model_copy(update={"payload": {"a": 2}})

    assert copy.data.data == b'{"a":2}'
    assert copy.to_document()["digest"] == an_event(**_fields(first) | {"payload": {"a": 2}}).digest


@pytest.mark.parametrize("deep", [True, False])
def test_a_changed_copy_is_checked(deep: bool) -> None:
    with pytest.raises(Invalid):
        an_event().model_copy(update={"payload": {"a": float("nan")}}, deep=deep)


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in Event.model_fields}


def test_the_digest_leaves_out_traceparent() -> None:
    """`traceparent` differs from one attempt to the next."""
    traced = KNOWN.metadata.model_copy(update={"traceparent": "00-1-2-01"})

    assert KNOWN.model_copy(update={"metadata": traced}).digest == KNOWN.digest


def test_the_digest_leaves_out_an_assigned_time() -> None:
    first = an_event(id=V4, aggregate_id="a", **with_metadata(time_assigned=True))
    later = first.model_copy(update={"timestamp": first.timestamp + timedelta(days=1)})

    assert later.digest == first.digest


def test_the_digest_leaves_out_the_order_of_names() -> None:
    reordered = OrderedDict(reversed(KNOWN.payload.items()))

    assert KNOWN.model_copy(update={"payload": dict(reordered)}).digest == KNOWN.digest


@settings(max_examples=100, deadline=None)
@given(events)
def test_a_document_gives_an_equal_event(event: Event) -> None:
    document = event.to_document()

    again = Event.from_document(document | {"seq": 1, "stored_at": 2, "outbox": {}})

    assert again == event
    assert again.digest == document["digest"]


def test_absent_metadata_is_not_stored_as_null() -> None:
    """A new field of a later release does not change the digests of earlier events."""
    assert an_event().to_document()["metadata"] == {"service_name": "/shop"}


def test_a_document_without_an_event_is_rejected() -> None:
    with pytest.raises(Invalid) as caught:
        Event.from_document({"_id": uuid4(), "metadata": {}})

    assert {problem.where for problem in caught.value.problems} >= {"id", "type", "time", "source"}


def test_a_document_too_large_for_mongodb_is_rejected() -> None:
    """In BSON an element of a list has its position too, so 2 bytes of JSON become up to 12."""
    event = an_event(payload={"a": [1] * 1_500_000})

    assert len(event.data.data) < 4 * 1024 * 1024
    with pytest.raises(TooLarge):
        encode_document(event.to_document())


# --- time -------------------------------------------------------------------------------------------------------------


def test_time_is_utc_in_milliseconds() -> None:
    """Finer digits are cut off before the digest, because MongoDB's dates have milliseconds."""
    east = datetime(2026, 7, 1, 1, 2, 3, 999999, tzinfo=timezone(timedelta(hours=2)))
    event = an_event(timestamp=east)

    assert event.timestamp == datetime(2026, 6, 30, 23, 2, 3, 999000, tzinfo=UTC)
    assert event.time == "2026-06-30T23:02:03.999Z"


@settings(max_examples=200, deadline=None)
@given(events)
def test_java_and_twofold_read_the_written_time(event: Event) -> None:
    assert java_time(event.time) is not None
    assert event.model_copy(update={"timestamp": event.time}).timestamp == event.timestamp


def test_the_earliest_time_is_accepted() -> None:
    """BSON and Kafka count milliseconds from here."""
    earliest = datetime(1970, 1, 1, tzinfo=UTC)
    assert an_event(timestamp=earliest).timestamp == earliest


def test_a_time_without_a_zone_is_rejected() -> None:
    assert rejection(timestamp=datetime(2026, 7, 1)).problems[0].where == "time"  # noqa: DTZ001 - what the test is about


@pytest.mark.parametrize(
    "time",
    [
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_a_time_out_of_range_is_rejected(time: datetime) -> None:
    (problem,) = rejection(timestamp=time).problems

    assert problem.where == "time"
    assert "from 1970 to 9999" in problem.what


# --- attributes of events from application code ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("specversion", "id", "source", "type", "subject", "time", "data", "eventversion", "userid", "traceparent"),
        *("twofolddigest", "twofoldexact", "twofoldorder", "twofoldtimeassigned", "replayid", "redriveof"),
        *("correlationid", "datacontenttype"),
    ],
)
def test_an_extension_must_not_have_the_name_of_an_attribute(name: str) -> None:
    """On the way to the log it would replace the attribute, and the event would never arrive."""
    assert rejection(**with_metadata(extensions={name: "x"})).problems[0].where == name


@pytest.mark.parametrize(
    "content_type",
    [
        'application/json; x="charset=utf-16"',
        'application/json; x="a;charset=utf-16"',
        'application/json; x="\\";charset=utf-16"',
        "application/json; mycharset=utf-16; charset-x=utf-16",
        "application/json;charset",
        'application/JSON ; x=1 ; CharSet = "UTF\\-8"',
        "application/json; charset=us-ascii; x=2",
    ],
)
def test_a_charset_is_a_parameter_of_the_media_type(content_type: str) -> None:
    assert parse_content_type(content_type)[:2] == ("application/json", "json")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json;charset=utf-16",
        'application/json; x="charset=utf-8"; charset=utf-16',
        'application/json; x="\\\\"; charset=utf-16',
        "application/json; charset=utf-8; charset=utf-16",
        'application/json; CHARSET="utf\\-16"',
        'application/json; x="open; charset=utf-16',
    ],
)
def test_a_charset_except_utf_8_is_named_in_the_error(content_type: str) -> None:
    with pytest.raises(UnsupportedType, match=r"JSON in the charset .*utf-16.* is not supported"):
        parse_content_type(content_type)


@pytest.mark.fault("B5")
@pytest.mark.parametrize("part", [';a="', ';a="\\"', "; ", ";charset ", ';a="\\";charset', ';charset=x"'])
def test_a_long_content_type_is_read_in_linear_time(part: str) -> None:
    """A member of a structured event can have the size of a body."""
    start = time.process_time()
    with contextlib.suppress(UnsupportedType):
        parse_content_type("a;charset" + part * (1_000_000 // len(part)))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("content_type", ["text", "a/b/c", "text /plain", "/", "text/", ";charset=utf-8", "é/a"])
def test_a_content_type_must_be_a_type_with_a_subtype(content_type: str) -> None:
    assert isinstance(rejection(**with_metadata(data_content_type=content_type)), UnsupportedType)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        *(("application/json", "json"), ("Text/JSON", "json"), ("application/cloudevents+json", "json"), ("", "json")),
        *(("text/plain", "text"), ("application/xml", "text"), ("image/svg+xml", "text"), ("application/yaml", "text")),
        *(("application/x-www-form-urlencoded", "text"), ("application/jsonl", "text"), ("text/x; a=b", "text")),
        *(("application/octet-stream", "bytes"), ("image/png", "bytes"), ("application/jsonp", "bytes")),
    ],
)
def test_the_content_type_decides_about_the_kind_of_data(content_type: str, kind: str) -> None:
    assert parse_content_type(content_type).kind == kind


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        *((b"", None), (b"", "image/png"), ("", "text/plain"), ("a", "image/png"), (b"a", "text/plain")),
        *((b"a", "text/json"), ("€", "text/plain; charset=iso-8859-1"), ({}, "text/plain"), (None, "image/png")),
    ],
)
def test_a_payload_must_fit_the_content_type(payload: object, content_type: str | None) -> None:
    assert rejection(payload=payload, **with_metadata(data_content_type=content_type)).problems[0].where == "data"


def test_application_json_is_the_default_content_type() -> None:
    event = an_event(id=V4, aggregate_id=None, timestamp=KNOWN.timestamp)
    typed = event.model_copy(update={"metadata": {"service_name": "/shop", "data_content_type": "application/json"}})
    assert (typed.digest, typed.metadata.data_content_type) == (event.digest, None)


def test_text_and_its_bytes_in_base64_have_one_digest_but_json_has_another() -> None:
    of_type = with_metadata(data_content_type="text/plain")
    text = an_event(id=V4, aggregate_id=None, timestamp=KNOWN.timestamp, payload="1", **of_type)
    json_ = text.model_copy(update={"metadata": {"service_name": "/shop"}, "payload": 1})
    none = json_.model_copy(update={"payload": NO_DATA})
    null = json_.model_copy(update={"payload": None})
    number = json_.model_copy(update={"payload": 1.0})
    assert len({event.digest for event in (text, json_, none, null, number)}) == 5


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("event_type", "", "type"),
        ("event_type", "a\n", "type"),
        ("aggregate_id", "", "subject"),
        ("aggregate_id", "\x85", "subject"),
        ("aggregate_id", 5, "subject"),
        ("payload", (), "data"),
        ("payload", {1: 2}, "data.1"),
        ("payload", {"a": object()}, "data.a"),
        ("payload", {"a": (1, 2)}, "data.a"),
        ("payload", {"a": datetime(2026, 7, 1, tzinfo=UTC)}, "data.a"),
        ("payload", {"a": b"x"}, "data.a"),
        ("payload", {"a": float("nan")}, "data.a"),
        ("id", "", "id"),
        ("id", uuid4(), "id"),
        ("metadata", {"service_name": "a b"}, "source"),
        ("metadata", {"service_name": "/s", "user_id": "\n"}, "userid"),
        ("metadata", {"service_name": "/s", "extensions": {"a": "b\n"}}, "a"),
        ("metadata", {"service_name": "/s", "extensions": {"a_b": "b"}}, "a_b"),
        ("metadata", {"service_name": "/s", "unknown": "b"}, "unknown"),
        ("unknown", 1, "unknown"),
    ],
)
def test_the_error_names_the_attribute_of_cloudevents(field: str, value: object, where: str) -> None:
    assert where in {problem.where for problem in rejection(**{field: value}).problems}


def test_an_event_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        an_event().event_type = "x"  # type: ignore[misc]  # what the test is about


# --- source: a URI reference in RFC 3986 and in Java-------------------------------------------------------------------

URI_PARTS = [
    *"abz09-._~!$&'()*+,;=:@/?#%[] \"<>\\^`{|}",
    "%41",
    "%2",
    "//",
    "http:",
    "urn:",
    "1a:",
    "[::1]",
    "[1::2%e0]",
]
URI_PARTS += [":80", ":99999", "é", "\x7f", "[::ffff:1.2.3.4]", "a.b", "..", "-", "_", "[v1.a]", "user@"]


def is_source(value: str) -> bool:
    try:
        an_event(metadata={"service_name": value})
    except Rejected:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(sources())
def test_the_generated_sources_are_valid(source: str) -> None:
    assert is_source(source)


@settings(max_examples=500, deadline=None)
@given(st.one_of(sources(), st.lists(st.sampled_from(URI_PARTS), max_size=6).map("".join)))
def test_a_source_without_a_stand_in_is_a_uri_for_kafka_source(source: str) -> None:
    """KafkaSource replaces a record with an invalid URI by a plain record with a new id."""
    assert not is_java_uri(source) or (is_source(source) and java_accepts_uri(source))
