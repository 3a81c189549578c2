"""The schema of an event: its identity, its digest and its allowed values."""

import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from bson.int64 import Int64
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dev.kafka_source.java import java_accepts_uri, java_time
from tests.helpers import an_event
from tests.strategies import events, payloads, sources
from tests.unit.test_kafka_source_rules import generated, java_says
from twofold.errors import Invalid, Rejected, TooLarge, UnsupportedType
from twofold.event.canonical import canonical_json
from twofold.event.identity import NAMESPACE, canonical_id, derived_id
from twofold.event.media_type import media_type
from twofold.event.model import Event
from twofold.mongo.documents import encode_document

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


@pytest.mark.parametrize("given_id", [V4, V7])
def test_a_canonical_uuid_is_the_identity(given_id: str) -> None:
    assert canonical_id(given_id) == UUID(given_id)
    assert an_event(event_id=UUID(given_id)).given_id == given_id


@pytest.mark.parametrize(
    "given_id",
    [
        V4.upper(),
        V4.replace("-", ""),
        f"{{{V4}}}",
        f"urn:uuid:{V4}",
        V4.replace("-4d", "-1d"),
        V4.replace("-9c", "-cc"),
        "00000000-0000-0000-0000-000000000000",
        f"{V4}\n",
        f" {V4}",
        "order-7",
    ],
)
def test_another_spelling_is_not_the_identity(given_id: str) -> None:
    """CloudEvents compares ids as text, so two spellings of a UUID have two derived identities."""
    assert canonical_id(given_id) is None


def test_a_derived_identity_never_changes() -> None:
    """The log is permanent."""
    assert derived_id("/shop", "order-7") == uuid5(NAMESPACE, '["/shop","order-7"]')
    assert str(derived_id("/shop", "order-7")) == "08cb099b-6941-5223-b752-82cafd444f7f"


def test_source_and_id_are_not_mixed_up() -> None:
    pairs = [("a", "b"), ("a,b", ""), ("a", "b,c"), ("a,b", "c"), ('a","b', "c"), ("a", 'b","c')]

    assert len({derived_id(source, given_id) for source, given_id in pairs}) == len(pairs)


def test_a_derived_identity_needs_the_producers_id() -> None:
    derived = derived_id("/shop", "order-7")

    assert an_event(event_id=derived, **with_metadata(source_event_id="order-7")).given_id == "order-7"
    assert rejection(event_id=derived).problems[0].where == "id"


def test_an_identity_derived_from_another_id_is_rejected() -> None:
    assert rejection(event_id=uuid4(), **with_metadata(source_event_id="order-7")).problems[0].where == "id"
    assert rejection(event_id=UUID(V4), **with_metadata(source_event_id=V4)).problems[0].where == "id"


# --- digest -----------------------------------------------------------------------------------------------------------

KNOWN = Event.of(
    event_id=UUID(V4),
    event_type="order.created",
    timestamp=datetime(2026, 7, 1, 12, 0, 0, 123999, tzinfo=UTC),
    aggregate_id="order-7",
    metadata={"service_name": "/shop", "user_id": "u", "extensions": {"tenant": "t"}},
    payload={"z": 1, "a": [1.0, -0.0, 1e22, 5e-324, 2**63 - 1, None, True, "é\0\U0001f600"], "": {"$ref": "x"}},
)


def test_the_digest_of_an_event_never_changes() -> None:
    """The digests in the log must be correct in ten years too, so the canonical form is a promise."""
    assert KNOWN.payload_json.decode() == (
        '{"":{"$ref":"x"},"a":[1.0,-0.0,1e+22,5e-324,9223372036854775807,null,true,"é\\u0000\U0001f600"],"z":1}'
    )
    assert KNOWN.digest.hex() == "0c53091ef0878bb06682b0bbfe6c0963bdaf695ed0b8a0efed99c05969cc04a0"


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
    "event_id": {"event_id": uuid4()},
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
    assert first.payload_json == b'{"a":1}'

    copy = first.model_copy(update={"payload": {"a": 2}})

    assert copy.payload_json == b'{"a":2}'
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
    first = an_event(event_id=UUID(V4), aggregate_id="a", **with_metadata(time_assigned=True))
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

    assert {problem.where for problem in caught.value.problems} >= {"type", "time", "source", "data"}


def test_a_document_too_large_for_mongodb_is_rejected() -> None:
    """In BSON an element of a list has its position too, so 2 bytes of JSON become up to 12."""
    event = an_event(payload={"a": [1] * 1_500_000})

    assert len(event.payload_json) < 4 * 1024 * 1024
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
        *("digest", "replayid", "timeassigned", "knativekafkapartition", "knativekafkaoffset", "correlationid"),
        *("redriveof", "knativeerrordest", "knativeerrorcode", "knativeerrordata"),
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
    assert media_type(content_type) == "application/json"


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
    with pytest.raises(UnsupportedType, match="charset 'utf-16' is not supported"):
        media_type(content_type)


@pytest.mark.fault("B5")
@pytest.mark.parametrize("part", [';a="', ';a="\\"', "; ", ";charset ", ';a="\\";charset', ';charset=x"'])
def test_a_long_content_type_is_read_in_linear_time(part: str) -> None:
    """A member of a structured event can have the size of a body."""
    start = time.process_time()
    with contextlib.suppress(UnsupportedType):
        media_type("a;charset" + part * (1_000_000 // len(part)))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/cloudevents+json", "Application/CloudEvents-batch+json", "application/jsonl"],
)
def test_a_content_type_must_be_json_and_not_an_events(content_type: str) -> None:
    """KafkaSource would take the payload of a record with `application/cloudevents+json` for the event itself."""
    assert isinstance(rejection(**with_metadata(extensions={"datacontenttype": content_type})), UnsupportedType)


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("event_type", "", "type"),
        ("event_type", "a b", "type"),
        ("aggregate_id", "é", "subject"),
        ("aggregate_id", " a", "subject"),
        ("aggregate_id", 5, "subject"),
        ("payload", [], "data"),
        ("payload", {1: 2}, "data.1"),
        ("payload", {"a": object()}, "data.a"),
        ("payload", {"a": (1, 2)}, "data.a"),
        ("payload", {"a": datetime(2026, 7, 1, tzinfo=UTC)}, "data.a"),
        ("payload", {"a": b"x"}, "data.a"),
        ("payload", {"a": float("nan")}, "data.a"),
        ("event_id", "x", "id"),
        ("metadata", {"service_name": "a b"}, "source"),
        ("metadata", {"service_name": "/s", "user_id": ""}, "userid"),
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
def test_every_valid_source_is_a_uri_for_kafka_source(source: str) -> None:
    """KafkaSource replaces a record with an invalid URI by a plain record with a new id."""
    assert not is_source(source) or java_accepts_uri(source)


@pytest.mark.java
def test_every_valid_source_is_a_uri_for_java(tmp_path: Path) -> None:
    accepted = [value for value in generated(URI_PARTS, 8) if is_source(value)]

    assert len(accepted) > 1000
    assert [
        value for value, answer in zip(accepted, java_says("uri", accepted, tmp_path), strict=True) if answer != "True"
    ] == []
