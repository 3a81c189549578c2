"""The bounds of what one event can cost: attributes, errors, sizes, times. Each bound holds exactly at its value."""

import contextlib
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.pod_events.lifecycle import lifecycle
from functions.pod_events.pod import Pod
from functions.publish.results import MAX_ANSWER_BYTES, batch_results
from tests.helpers import Raw, an_event, delivered
from tests.pods import IDENTITY, new_life
from tests.strategies import NOW, structured
from twofold.cloudevents import decode_http as decoding
from twofold.cloudevents import decode_kafka as delivering
from twofold.cloudevents import strict_json
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import MAX_HEADERS, decode_kafka
from twofold.cloudevents.encode import (
    HOP_HEADERS,
    MAX_ATTRIBUTES,
    MAX_ATTRIBUTES_BYTES,
    MAX_OTHER_ATTRIBUTES,
    EncodedEvent,
    check_attributes_size,
    encode_kafka,
)
from twofold.errors import (
    MAX_DETAIL_CHARS,
    MAX_PROBLEMS,
    Conflict,
    Invalid,
    Malformed,
    Problem,
    Rejected,
    TooLarge,
    TwofoldError,
    Unexpected,
    UnsupportedType,
)
from twofold.event import media_type
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES
from twofold.event.media_type import parse_content_type
from twofold.event.payload import MAX_CONTAINERS
from twofold.event.time import check_not_future
from twofold.web.bodies import JsonResponse
from twofold.web.problems import problem_details
from twofold.write.batch import Published
from twofold.write.decoding import CHEAP_BYTES, CHEAP_LARGE_BYTES, CHEAP_VALUES, is_costly

CONTEXT = {"specversion": "1.0", "type": "t", "source": "/s", "id": "1"}
BATCH = [(b"content-type", b"application/cloudevents-batch+json")]

ENVOY_MAX_HEADERS = 100
"""Envoy's default of `max_headers_count`."""
OF_THE_CONNECTION = [
    *("host", "content-length", "user-agent", "prefer", "kn-namespace", "traceparent", "tracestate", "baggage"),
    *("x-forwarded-for", "x-forwarded-proto", "x-request-id", "x-envoy-expected-rq-timeout-ms", "forwarded"),
    *("x-envoy-attempt-count", "k-proxy-request", "k-network-hash", "accept-encoding"),
]
"""The headers of a KafkaSource's client, of Envoy and of Knative's activator."""


def extensions(number: int) -> dict[str, str]:
    return {f"x{n}": "1" for n in range(number)}


def decoded(event: dict[str, Any]) -> IncomingEvent:
    incoming = decode_http([(b"content-type", b"application/cloudevents+json")], json.dumps(event).encode(), NOW, 1)
    assert isinstance(incoming, IncomingEvent)
    return incoming


# --- B1: the number of attributes ---------------------------------------------------------------------------------


@pytest.mark.fault("B1")
def test_the_number_of_attributes_has_a_bound() -> None:
    most = CONTEXT | extensions(MAX_OTHER_ATTRIBUTES - len(CONTEXT))
    assert decoded(most).encoded.attributes.keys() >= most.keys()
    with pytest.raises(Invalid, match=f"at most {MAX_OTHER_ATTRIBUTES} are allowed"):
        decoded(most | {"more": "1"})
    assert MAX_OTHER_ATTRIBUTES + len(HOP_HEADERS) == MAX_ATTRIBUTES


@pytest.mark.fault("B1")
def test_the_number_of_headers_in_binary_mode_has_the_same_bound() -> None:
    most = CONTEXT | extensions(MAX_OTHER_ATTRIBUTES - len(CONTEXT)) | {"time": "2026-07-01T00:00:00Z"}
    headers: Raw = [(f"ce-{name}".encode(), value.encode()) for name, value in most.items()]
    assert decode_http(headers, b"{}", NOW, 1)
    with pytest.raises(Invalid, match="attributes"):
        decode_http([*headers, (b"ce-more", b"1")], b"{}", NOW, 1)


@pytest.mark.fault("B1")
def test_an_absent_attribute_and_the_attributes_of_hops_do_not_count() -> None:
    most = CONTEXT | extensions(MAX_OTHER_ATTRIBUTES - len(CONTEXT))
    more: dict[str, Any] = {
        "absent": None,
        "data": {},
        "time": "2026-07-01T00:00:00Z",
        "knativeerrorcode": "503",
        "traceparent": "x",
    }
    assert decoded(most | more)


@pytest.mark.fault("B1")
def test_the_largest_number_of_attributes_passes_the_gateway_on_every_hop() -> None:
    """The request to the dead-letter sink has the most headers: those of the hop, of a redrive and of a replay."""
    event = an_event(metadata={"service_name": "/s", "extensions": extensions(MAX_OTHER_ATTRIBUTES - 5)})
    check_attributes_size(encode_kafka(event).headers)
    headers, _ = delivered(
        event,
        redriveof=str(event.event_id),
        replayid="r",
        twofoldexact="e30",
        twofoldtimeassigned="true",
        traceparent="00-1-2-3",
        knativeerrordest="x",
        knativeerrorcode="x",
        knativeerrordata="x",
    )
    assert len(headers) == MAX_ATTRIBUTES
    assert len({name for name, _ in headers} | {name.encode() for name in OF_THE_CONNECTION}) <= ENVOY_MAX_HEADERS


@pytest.mark.fault("B1", "B2")
@pytest.mark.parametrize("number", [11, 12])
def test_exact_values_count_in_the_bound_of_all_attributes(number: int) -> None:
    """`twofoldexact` has them a second time, in base64: 11 values of 1,024 bytes have 26 KB with their second form."""
    values = {f"x{position}": "é" * 512 for position in range(number + 2)}
    encoded = EncodedEvent.of(an_event(metadata={"service_name": "/s", "extensions": values}))
    record = encoded.record()
    size = sum(len(name) + len(value) for name, value in record.headers)
    assert (size > MAX_ATTRIBUTES_BYTES) == (number == 12)
    if number == 12:
        with pytest.raises(Invalid, match="counts twice"):
            check_attributes_size(record.headers, has_exact=True)
    else:
        check_attributes_size(record.headers, has_exact=True)


@pytest.mark.fault("B1")
def test_an_application_has_the_same_bound() -> None:
    event = an_event(metadata={"service_name": "/s", "extensions": extensions(MAX_OTHER_ATTRIBUTES)})
    with pytest.raises(Invalid, match="attributes"):
        check_attributes_size(encode_kafka(event).headers)


@pytest.mark.fault("B1", "B2")
def test_the_names_are_counted_before_the_work_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> str:
        raise AssertionError("an attribute was read")

    monkeypatch.setattr(decoding, "attribute_text", never)
    with pytest.raises(Invalid, match="attributes"):
        decoded(CONTEXT | {f"x{n}": 1 for n in range(10_900)})


@pytest.mark.fault("B3")
def test_the_headers_of_a_delivery_are_counted_first() -> None:
    headers, body = delivered(an_event())
    many = [*headers, *((f"ce-x{n}".encode(), b"") for n in range(MAX_HEADERS - len(headers)))]
    with pytest.raises(Rejected) as caught:
        decode_kafka(many, body)
    assert "headers" not in caught.value.detail
    with pytest.raises(Malformed, match=f"at most {MAX_HEADERS}"):
        decode_kafka([*many, (b"ce-more", b"")], body)


# --- B2: the size of an error and of a batch's answer -------------------------------------------------------------


@pytest.mark.fault("B2")
def test_an_error_has_a_bounded_number_of_problems_and_a_bounded_detail() -> None:
    problems = tuple(Problem("w" * 10_000, "x" * 10_000) for _ in range(MAX_PROBLEMS))
    at, above = Invalid("d" * MAX_DETAIL_CHARS, problems=problems), Invalid("d" * 2001, problems=problems * 500)
    assert (len(at.problems), at.detail) == (MAX_PROBLEMS, "d" * MAX_DETAIL_CHARS)
    assert (len(above.problems), len(above.detail)) == (MAX_PROBLEMS, MAX_DETAIL_CHARS)
    assert above.problems[-1].what == f"{500 * MAX_PROBLEMS - MAX_PROBLEMS + 1} more problems are left out"
    assert len(JsonResponse(problem_details(above)).body) < 20_000


@pytest.mark.fault("B2")
def test_a_pod_with_many_mistakes_has_a_bounded_error() -> None:
    pod = new_life("no_status")[0].pod
    pod["metadata"]["labels"] = {f"label-{n}": n for n in range(100_000)}
    pod["spec"]["containers"] = [1] * 100_000
    with pytest.raises(Invalid) as caught:
        Pod.of(pod)
    assert {problem.where for problem in caught.value.problems} == {"data.metadata.labels", "data.spec.containers.0"}


def results(outcomes: list[Published | TwofoldError], given_id: str | None = None) -> tuple[int, list[Any]]:
    body = bytes(JsonResponse(batch_results([given_id] * len(outcomes), outcomes)).body)
    return len(body), json.loads(body)["results"]


@pytest.mark.fault("B2")
@pytest.mark.parametrize("text", ["x", '"', "\x00", "é", "\U0001f600"])
@pytest.mark.parametrize("number", [1000, 5000])
def test_the_answer_to_a_batch_has_a_bound(number: int, text: str) -> None:
    """5,000 is the largest `MAX_BATCH_EVENTS`."""
    problems = tuple(Problem(text * 250, text * 500) for _ in range(MAX_PROBLEMS))
    size, listed = results([Invalid(text * MAX_DETAIL_CHARS, problems=problems) for _ in range(number)])
    assert size <= MAX_ANSWER_BYTES
    assert [(each["status"], each["title"]) for each in listed] == [(422, "invalid")] * number
    assert all(each["detail"].endswith("...") for each in listed)


@pytest.mark.fault("B2")
@pytest.mark.parametrize("number", [1000, 5000])
def test_the_answer_to_an_accepted_batch_has_a_bound(number: int) -> None:
    accepted = Published(an_event().event_id, '"' * 1024, "duplicate")
    size, listed = results([accepted] * number)
    assert size <= MAX_ANSWER_BYTES
    assert {each["event_id"] for each in listed} == {str(accepted.event_id)}


@pytest.mark.fault("B2")
@pytest.mark.parametrize("text", ["x", '"', "\x00", "é", "\U0001f600"])
@pytest.mark.parametrize("number", [1000, 5000])
@pytest.mark.parametrize("detail", [1, MAX_DETAIL_CHARS])
def test_the_answer_to_a_batch_with_long_ids_has_a_bound(number: int, text: str, detail: int) -> None:
    size, listed = results([Conflict(text * detail) for _ in range(number)], "order-7-" + text * 1016)
    assert size <= MAX_ANSWER_BYTES
    assert all(each["id"].startswith("order-7-") for each in listed)
    assert all(each["id"].endswith("...") for each in listed)
    assert [each["detail"].endswith("...") for each in listed] == [detail > 1] * number


@pytest.mark.fault("B2")
def test_a_short_id_stays_whole_beside_a_long_detail() -> None:
    given = str(an_event().event_id)
    size, listed = results([Conflict("x" * MAX_DETAIL_CHARS) for _ in range(5000)], given)
    assert size <= MAX_ANSWER_BYTES
    assert {each["id"] for each in listed} == {given}


@pytest.mark.fault("B2")
@pytest.mark.parametrize("members", [1, 1000])
@pytest.mark.parametrize("text", ["i", "\ud800", "\x00", "é"])
def test_the_id_of_a_refused_member_has_a_bound(text: str, members: int) -> None:
    """A member was not checked, so its `id` can have the size of a body, and characters that JSON cannot hold."""
    event = {"specversion": "1.0", "id": text * (1_000_000 // members)}
    outcomes = decode_http(BATCH, json.dumps([event] * members).encode(), NOW, members)
    assert not isinstance(outcomes, IncomingEvent)
    errors = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    given_ids = [error.given_id for error in errors]
    assert len(errors) == members
    assert all(given_id and len(given_id) <= MAX_ATTRIBUTE_BYTES for given_id in given_ids)
    body = JsonResponse(batch_results(given_ids, errors)).body
    assert len(body) <= MAX_ANSWER_BYTES
    assert all(each["id"] for each in json.loads(bytes(body))["results"])


@pytest.mark.fault("B2")
def test_a_short_answer_is_whole() -> None:
    accepted, wrong = Published(an_event().event_id, "i" * 1024, "accepted"), Invalid("x" * 2000, "data")
    _, (first, second) = results([accepted, wrong])
    assert first == {"status": 202, "id": "i" * 1024, "event_id": str(accepted.event_id), "result": "accepted"}
    assert second == problem_details(wrong)
    assert results([wrong], "7")[1] == [{"id": "7", **problem_details(wrong)}]


# --- B5: sizes before the work ------------------------------------------------------------------------------------


@pytest.mark.fault("B5")
@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_a_body_larger_than_a_record_is_refused_before_it_is_parsed(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> object:
        raise AssertionError("the body was parsed")

    monkeypatch.setattr(strict_json, "parse", never)
    headers: Raw = [(b"content-type", b"application/cloudevents+json")]
    if mode == "binary":
        headers = [(f"ce-{name}".encode(), value.encode()) for name, value in CONTEXT.items()]
        headers.append((b"content-type", b"application/json"))
    most = 1000 if mode == "binary" else 2000
    with pytest.raises(TooLarge, match="without white space"):
        decode_http(headers, b"[" * (most + 1), NOW, 1, 1000)
    with pytest.raises(AssertionError, match="parsed"):
        decoding._decode(headers, b"[" * most, NOW, 1, 1000)


@pytest.mark.fault("B5")
def test_a_structured_event_may_be_larger_than_its_record() -> None:
    """A character of Latin-1 has two bytes in JSON, and base64 four bytes for three."""
    for data in ({"data": "é" * 900, "datacontenttype": "text/plain; charset=iso-8859-1"}, {"data_base64": "A" * 1200}):
        single: Raw = [(b"content-type", b"application/cloudevents+json")]
        for headers, body in ((single, CONTEXT | data), (BATCH, [CONTEXT | data])):
            decoded = decode_http(headers, json.dumps(body, ensure_ascii=False).encode(), NOW, 1, 1000)
            (outcome,) = [decoded] if isinstance(decoded, IncomingEvent) else decoded
            assert isinstance(outcome, IncomingEvent), outcome


@pytest.mark.fault("B4")
def test_a_long_content_type_stays_in_no_cache() -> None:
    for number in range(3):
        with pytest.raises(UnsupportedType, match="1,024"):
            parse_content_type(f"text/plain;x={number}" + "a" * 1_000_000)
    assert (media_type._parse.cache_info().maxsize or 0) * MAX_ATTRIBUTE_BYTES <= 1024 * 1024


@pytest.mark.fault("B5")
def test_white_space_and_escapes_do_not_count_as_bytes_in_kafka() -> None:
    payload = {"text": "é" * 300, "list": [1, 2]}
    headers, _ = structured(CONTEXT, {})
    body = json.dumps(CONTEXT | {"data": payload}, indent=40).encode()
    assert len(body) > 2000
    assert decode_http(headers, body, NOW, 1, 1000)


@pytest.mark.fault("B5")
def test_a_member_of_a_batch_is_measured_before_its_values_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = (CONTEXT | {"data": {"x": "y" * size}} for size in (2000, 10))
    outcomes = decode_http(BATCH, json.dumps([large, small]).encode(), NOW, 2, 1000)
    assert not isinstance(outcomes, IncomingEvent)
    first, second = outcomes
    assert isinstance(first, TooLarge)
    assert isinstance(second, IncomingEvent)


@pytest.mark.fault("B5")
@pytest.mark.parametrize("bracket", ["[", "{"])
def test_the_lists_and_objects_of_a_text_are_counted_before_it_is_parsed(bracket: str) -> None:
    body = json.dumps({"text": bracket * (MAX_CONTAINERS - 1)}).encode()
    assert strict_json.parse(body)
    with pytest.raises(TooLarge, match=f"at most {MAX_CONTAINERS}"):
        strict_json.parse(b"[" + body)


@pytest.mark.fault("B5")
def test_a_record_larger_than_the_topic_takes_is_not_read() -> None:
    headers, body = delivered(an_event())
    assert decode_kafka(headers, body, len(body))
    with pytest.raises(TooLarge, match="the topic's limit"):
        decode_kafka(headers, body, len(body) - 1)


@pytest.mark.fault("B5")
def test_a_costly_body_is_told_by_its_structure() -> None:
    values = b"," * CHEAP_VALUES
    assert not is_costly(b"[" * CHEAP_BYTES)
    assert not is_costly(values + b"x" * CHEAP_BYTES)
    assert is_costly(values + b"[" + b"x" * CHEAP_BYTES)
    assert not is_costly(b"x" * CHEAP_LARGE_BYTES)
    assert is_costly(b"x" * (CHEAP_LARGE_BYTES + 1))


# --- B9: times in the future --------------------------------------------------------------------------------------


@pytest.mark.fault("B9")
def test_a_time_may_be_a_stated_span_ahead() -> None:
    day = timedelta(days=1)
    check_not_future(NOW + day, NOW, day)
    check_not_future(NOW - 365 * day, NOW, day)
    with pytest.raises(Invalid) as caught:
        check_not_future(NOW + day + timedelta(milliseconds=1), NOW, day)
    assert caught.value.problems[0].where == "time"


# --- B10: arithmetic within bounds --------------------------------------------------------------------------------

INTEGERS = st.one_of(st.integers(), st.sampled_from([0, 30, 2**31 - 1, 2**31, 2**63 - 1, -(2**63), 73786977000]))
MOMENTS = st.sampled_from(["0001-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "2026-07-01T00:00:00Z"])
LATE = st.sampled_from(["9999-12-31T23:59:59Z", "2026-07-01T00:00:30+14:00", "0001-01-01T00:00:00Z"])


@pytest.mark.fault("B10")
@settings(max_examples=300, deadline=None)
@given(INTEGERS, INTEGERS, MOMENTS, LATE)
def test_no_integer_of_a_pod_raises_an_unexpected_error(grace: int, deadline: int, created: str, late: str) -> None:
    pod = new_life("deadline_exceeded")[-1].pod
    pod["metadata"] |= {"creationTimestamp": created, "deletionTimestamp": late, "deletionGracePeriodSeconds": grace}
    pod["spec"]["activeDeadlineSeconds"] = deadline
    pod["status"]["startTime"] = late
    pod["status"]["conditions"] = []
    for status in pod["status"].get("containerStatuses", []):
        status["state"] = {}
    with contextlib.suppress(Rejected):
        lifecycle(Pod.of(pod), IDENTITY, deleted=True)


@pytest.mark.fault("B10")
@pytest.mark.parametrize("grace", [73786977000, 10**30, 86_401])
def test_a_grace_period_before_the_creation_is_moved_to_the_creation(grace: int) -> None:
    pod = new_life("deleted_while_running")[0].pod
    created, asked = "2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z"
    pod["metadata"] |= {"creationTimestamp": created, "deletionTimestamp": asked, "deletionGracePeriodSeconds": grace}
    read = Pod.of(pod)
    assert read.deletion_requested_at == read.metadata.creation_timestamp


# --- unexpected errors --------------------------------------------------------------------------------------------

_ERRORS = [
    KeyError("DE02SECRET"),
    OverflowError("DE02SECRET"),
    RecursionError("DE02SECRET"),
    UnicodeEncodeError("utf-8", "DE02SECRET", 0, 1, "DE02SECRET"),
    AssertionError("DE02SECRET"),
]
ERRORS = [pytest.param(error, id=type(error).__name__) for error in _ERRORS]


@pytest.mark.fault("B10")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "place", ["encode_fast", "payload_of_members", "check_attributes_size", "check_required_attributes"]
)
def test_an_unexpected_error_of_one_event_is_its_result_in_the_batch(
    place: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = getattr(decoding, place)

    def sometimes(*arguments: Any) -> Any:
        if "poison" in str(arguments):
            raise type(error)(*error.args)
        return real(*arguments)

    monkeypatch.setattr(decoding, place, sometimes)
    poison = CONTEXT | {"poison": "1", "data": {"poison": 1}}
    batch = [CONTEXT | {"id": "a"}, poison, CONTEXT | {"id": "b"}]
    with caplog.at_level(logging.ERROR):
        outcomes = decode_http(BATCH, json.dumps(batch).encode(), NOW, 3)
        assert not isinstance(outcomes, IncomingEvent)
        first, second, third = outcomes
    assert isinstance(second, Unexpected)
    assert [type(first), type(third)] == [IncomingEvent, IncomingEvent]
    assert "DE02SECRET" not in caplog.text + second.detail
    assert "decode_http.py" in caplog.text


@pytest.mark.fault("B10")
@pytest.mark.parametrize("error", ERRORS)
def test_an_unexpected_error_of_a_delivery_makes_a_dead_letter(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise type(error)(*error.args)

    monkeypatch.setattr(delivering, "content_fields", broken)
    with pytest.raises(Unexpected):
        decode_kafka(*delivered(an_event()))


@pytest.mark.fault("B10")
def test_lack_of_memory_is_no_fault_of_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(delivering, "content_fields", broken)
    with pytest.raises(MemoryError):
        decode_kafka(*delivered(an_event()))
