"""The schema: who an event is, what its digest covers, and what it may hold."""

import json
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

from dev.kafka_source_java import java_accepts_uri, java_time
from tests.helpers import an_event
from tests.strategies import events, payloads, sources
from tests.unit.test_kafka_source_rules import generated, java_says
from twofold.errors import Invalid, Rejected, TooLarge, UnsupportedType
from twofold.event.canonical import canonical_json
from twofold.event.identity import NAMESPACE, canonical_id, derived_id
from twofold.event.model import Event
from twofold.mongo.documents import encode_document

pytestmark = pytest.mark.guarantee("G2", "R26")

V4 = "7b0e9f5c-4f3a-4d27-9c56-6f5f8f0a1b2c"
V7 = "01920000-0000-7000-8000-000000000000"


def refusal(**fields: Any) -> Rejected:
    """Why there is no such event."""
    with pytest.raises(Rejected) as caught:
        an_event(**fields)
    return caught.value


def with_metadata(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"service_name": "/shop"} | metadata}


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_id", [V4, V7])
def test_a_canonical_uuid_is_the_identity_itself(given_id: str) -> None:
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
def test_anything_else_is_not(given_id: str) -> None:
    """Two spellings of one UUID are two ids for CloudEvents, so each has its own derived identity."""
    assert canonical_id(given_id) is None


def test_a_derived_identity_is_that_of_source_and_id_for_ever() -> None:
    """The log is permanent, so these values may never change."""
    assert derived_id("/shop", "order-7") == uuid5(NAMESPACE, '["/shop","order-7"]')
    assert str(derived_id("/shop", "order-7")) == "08cb099b-6941-5223-b752-82cafd444f7f"


def test_source_and_id_do_not_run_into_each_other() -> None:
    pairs = [("a", "b"), ("a,b", ""), ("a", "b,c"), ("a,b", "c"), ('a","b', "c"), ("a", 'b","c')]

    assert len({derived_id(source, given_id) for source, given_id in pairs}) == len(pairs)


def test_a_derived_identity_comes_with_what_it_was_derived_from() -> None:
    derived = derived_id("/shop", "order-7")

    assert an_event(event_id=derived, **with_metadata(source_event_id="order-7")).given_id == "order-7"
    assert refusal(event_id=derived).problems[0].where == "id"


def test_an_identity_that_was_derived_from_something_else_is_refused() -> None:
    assert refusal(event_id=uuid4(), **with_metadata(source_event_id="order-7")).problems[0].where == "id"
    assert refusal(event_id=UUID(V4), **with_metadata(source_event_id=V4)).problems[0].where == "id"


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
    """Of the log it must be checked in ten years by what was written today: the canonical form is a promise."""
    assert KNOWN.payload_json.decode() == (
        '{"":{"$ref":"x"},"a":[1.0,-0.0,1e+22,5e-324,9223372036854775807,null,true,"é\\u0000\U0001f600"],"z":1}'
    )
    assert KNOWN.digest.hex() == "0c53091ef0878bb06682b0bbfe6c0963bdaf695ed0b8a0efed99c05969cc04a0"


class OwnFloat(float):
    """As numpy's, which applications may give."""


@settings(max_examples=300, deadline=None)
@given(st.one_of(payloads, st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False))))
@example({"a": 1e-05})
@example({"a": [1.5e-7]})
@example({"a": [0, -2e-10]})
@example({"a": 1e16})
@example({"a": [0.0001, 9999999999999998.0, 10.00001]})
@example({"e1": 1, "é": "2e+5", "\ufffd": 0, "\U0001f600": Int64(5)})
@example({"a": OwnFloat(3.5)})
def test_canonical_json_is_that_of_the_standard_library(payload: dict[str, Any]) -> None:
    """Whichever encoder made it, and whatever a later release of it makes of numbers."""
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
    "who gave the time": {"metadata": KNOWN.metadata.model_copy(update={"time_assigned": True})},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_covers(change: str) -> None:
    assert KNOWN.model_copy(update=CHANGES[change]).digest != KNOWN.digest


def test_a_changed_copy_has_its_own_digest_and_payload_even_if_those_of_the_first_were_asked_for() -> None:
    """Pydantic copies cached values along; then the two collections would hold two different payloads."""
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
    """It differs from one attempt to the next."""
    traced = KNOWN.metadata.model_copy(update={"traceparent": "00-1-2-01"})

    assert KNOWN.model_copy(update={"metadata": traced}).digest == KNOWN.digest


def test_the_digest_leaves_out_an_assigned_time() -> None:
    first = an_event(event_id=UUID(V4), aggregate_id="a", **with_metadata(time_assigned=True))
    later = first.model_copy(update={"timestamp": first.timestamp + timedelta(days=1)})

    assert later.digest == first.digest


def test_the_order_of_names_is_no_part_of_the_digest() -> None:
    turned = OrderedDict(reversed(KNOWN.payload.items()))

    assert KNOWN.model_copy(update={"payload": dict(turned)}).digest == KNOWN.digest


@settings(max_examples=100, deadline=None)
@given(events)
def test_a_document_is_read_back_as_the_event_that_it_was_made_of(event: Event) -> None:
    document = event.to_document()

    again = Event.from_document(document | {"seq": 1, "stored_at": 2, "outbox": {}})

    assert again == event
    assert again.digest == document["digest"]


def test_absent_metadata_is_not_stored_as_null() -> None:
    """So that a field that is added one day changes no digest of before."""
    assert an_event().to_document()["metadata"] == {"service_name": "/shop"}


def test_a_document_that_is_no_event_says_so() -> None:
    with pytest.raises(Invalid) as caught:
        Event.from_document({"_id": uuid4(), "metadata": {}})

    assert {problem.where for problem in caught.value.problems} >= {"type", "time", "source", "data"}


def test_a_document_too_large_for_mongodb_is_refused_before_it_joins_a_group() -> None:
    """In BSON each element of a list also has its position: 2 bytes of JSON become up to 12."""
    event = an_event(payload={"a": [1] * 1_500_000})

    assert len(event.payload_json) < 4 * 1024 * 1024
    with pytest.raises(TooLarge):
        encode_document(event.to_document())


# --- time -------------------------------------------------------------------------------------------------------------


def test_time_is_utc_in_milliseconds() -> None:
    """What is finer is cut off, before the digest: MongoDB's dates have no more."""
    east = datetime(2026, 7, 1, 1, 2, 3, 999999, tzinfo=timezone(timedelta(hours=2)))
    event = an_event(timestamp=east)

    assert event.timestamp == datetime(2026, 6, 30, 23, 2, 3, 999000, tzinfo=UTC)
    assert event.time == "2026-06-30T23:02:03.999Z"


@settings(max_examples=200, deadline=None)
@given(events)
def test_time_is_written_as_java_and_we_read_it(event: Event) -> None:
    assert java_time(event.time) is not None
    assert event.model_copy(update={"timestamp": event.time}).timestamp == event.timestamp


def test_the_earliest_time_is_accepted() -> None:
    """BSON and Kafka count milliseconds from here."""
    earliest = datetime(1970, 1, 1, tzinfo=UTC)
    assert an_event(timestamp=earliest).timestamp == earliest


def test_a_time_without_a_zone_is_refused() -> None:
    assert refusal(timestamp=datetime(2026, 7, 1)).problems[0].where == "time"  # noqa: DTZ001 - what the test is about


@pytest.mark.parametrize(
    "time",
    [
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_a_time_that_not_all_parts_can_hold_is_refused(time: datetime) -> None:
    (problem,) = refusal(timestamp=time).problems

    assert problem.where == "time"
    assert "from 1970 to 9999" in problem.what


# --- attributes of events that application code builds ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("specversion", "id", "source", "type", "subject", "time", "data", "eventversion", "userid", "traceparent"),
        *("digest", "replayid", "timeassigned", "knativekafkapartition", "knativekafkaoffset", "correlationid"),
        *("redriveof", "knativeerrordest", "knativeerrorcode", "knativeerrordata"),
    ],
)
def test_an_extension_can_not_take_the_name_of_an_attribute(name: str) -> None:
    """On the way to the log it would replace that, and the event would never arrive."""
    assert refusal(**with_metadata(extensions={name: "x"})).problems[0].where == name


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/cloudevents+json", "Application/CloudEvents-batch+json", "application/jsonl"],
)
def test_a_content_type_is_that_of_json_and_of_no_event(content_type: str) -> None:
    """KafkaSource takes the payload of a record with `application/cloudevents+json` for the event itself."""
    assert isinstance(refusal(**with_metadata(extensions={"datacontenttype": content_type})), UnsupportedType)


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
def test_what_is_wrong_is_named_as_cloudevents_names_it(field: str, value: object, where: str) -> None:
    assert where in {problem.where for problem in refusal(**{field: value}).problems}


def test_an_event_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        an_event().event_type = "x"  # type: ignore[misc]  # what the test is about


# --- source: a URI reference, for us and for Java ---------------------------------------------------------------------

PIECES = [*"abz09-._~!$&'()*+,;=:@/?#%[] \"<>\\^`{|}", "%41", "%2", "//", "http:", "urn:", "1a:", "[::1]", "[1::2%e0]"]
PIECES += [":80", ":99999", "é", "\x7f", "[::ffff:1.2.3.4]", "a.b", "..", "-", "_", "[v1.a]", "user@"]


def is_source(value: str) -> bool:
    try:
        an_event(metadata={"service_name": value})
    except Rejected:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(sources())
def test_what_our_tests_take_for_a_source_is_one(source: str) -> None:
    assert is_source(source)


@settings(max_examples=500, deadline=None)
@given(st.one_of(sources(), st.lists(st.sampled_from(PIECES), max_size=6).map("".join)))
def test_each_source_is_a_uri_for_kafka_source(source: str) -> None:
    """With one that is none, KafkaSource makes the record a plain one with a new id."""
    assert not is_source(source) or java_accepts_uri(source)


@pytest.mark.java
def test_each_source_is_a_uri_for_java_itself(tmp_path: Path) -> None:
    accepted = [value for value in generated(PIECES, 8) if is_source(value)]

    assert len(accepted) > 1000
    assert [
        value for value, said in zip(accepted, java_says("uri", accepted, tmp_path), strict=True) if said != "True"
    ] == []
