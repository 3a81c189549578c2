"""Bad input and odd input: every mistake of a producer has its own answer, and odd input is accepted."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.bad_input import BAD, MAX_EVENTS, ODD, ODD_BATCH, Bad, Odd
from tests.helpers import Raw
from tests.strategies import NOW, read
from twofold.cloudevents import strict_json
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import decode_kafka, kafka_coordinates
from twofold.cloudevents.encode import attributes_of, encode_http
from twofold.errors import Invalid, Rejected
from twofold.web.problems import problem_details

pytestmark = pytest.mark.guarantee("G4", "R3")

MAX_ANSWER_BYTES = 4096


def answer_to(error: Rejected) -> bytes:
    """Return the body of the answer in Starlette's form."""
    return json.dumps(problem_details(error), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in BAD])
def test_is_rejected(bad: Bad) -> None:
    """The error has the status, the reason and the place, in an answer of bounded size."""
    with pytest.raises(Rejected) as caught:
        decode_http(bad.request.served, bad.request.body, NOW, MAX_EVENTS)

    error = caught.value
    assert type(error) is bad.error
    assert bad.says in " ".join([error.detail, *(problem.what for problem in error.problems)])
    assert ({bad.where} if bad.where is not None else set()) <= {problem.where for problem in error.problems}
    assert len(answer_to(error)) < MAX_ANSWER_BYTES


@pytest.mark.parametrize("odd", [pytest.param(odd, id=odd.name) for odd in ODD])
def test_is_accepted(odd: Odd) -> None:
    """Payload and attributes are equal, with the signs of zeros and the types of numbers."""
    event = read((odd.request.served, odd.request.body))

    assert repr(event.payload) == repr(odd.payload)
    attributes = attributes_of(event)
    if odd.name != "an event within an event":  # only the structured mode can carry it
        attributes["datacontenttype"] = encode_http(event)[0].get("content-type", "")
    assert odd.attributes.items() <= attributes.items()
    assert not set(odd.absent) & attributes.keys()


def test_a_bad_event_does_not_affect_its_batch() -> None:
    outcomes = decode_http(ODD_BATCH.served, ODD_BATCH.body, NOW, MAX_EVENTS)

    assert not isinstance(outcomes, IncomingEvent)
    assert [outcome.event.id[-1] if isinstance(outcome, IncomingEvent) else outcome.status for outcome in outcomes] == [
        "0",
        422,
        400,
        422,
        "d",
    ]


def test_many_names_under_a_long_name_are_checked_in_linear_time() -> None:
    """Only an error needs the path as text. Otherwise 100,000 members would copy a name of 2 MB 100,000 times."""
    inner = ",".join(f'"{number}":1' for number in range(100_000))
    body = f'{{"{"x" * 2_000_000}":{{{inner},"bad":1e999}}}}'

    with pytest.raises(Invalid) as caught:
        read(([(b"ce-specversion", b"1.0"), *_CONTEXT], body.encode()))

    assert caught.value.problems[0].where == f"data.{'x' * 64}.bad"


def test_a_repeated_name_is_found_in_linear_time() -> None:
    body = "{" + ",".join(f'"{number % 299_999}":1' for number in range(300_000)) + "}"

    with pytest.raises(Rejected, match="'0' stands twice"):
        read(([(b"ce-specversion", b"1.0"), *_CONTEXT], body.encode()))


# --- fuzzing: every request has an answer ----------------------------------------------------------------------------

_CONTEXT = [(b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]

_ATTRIBUTES = ["specversion", "id", "source", "type", "time", "subject", "correlationid", "eventversion", "dataschema"]
_ATTRIBUTES += ["datacontenttype", "twofolddigest", "replayid", "twofoldtimeassigned", "data", "x", "X", ""]
_KAFKA_ATTRIBUTES = ["knativekafkaoffset", "knativekafkapartition"]

_names = st.one_of(
    st.sampled_from([f"ce-{name}".encode() for name in _ATTRIBUTES + _KAFKA_ATTRIBUTES]),
    st.sampled_from([b"content-type", b"CE-ID"]),
    st.binary(max_size=6).map(b"ce-".__add__),
    st.binary(max_size=6),
)
_header_values = st.one_of(
    st.sampled_from(
        [
            b"1.0",
            b"application/json",
            b"application/cloudevents+json",
            b"application/cloudevents-batch+json;charset=utf-8",
            b"application/json; charset=\xff",
            b"2026-07-01T00:00:00Z",
            b"9999-12-31T23:59:59-23:59",
            b"true",
            b"%",
            b"%ff%00",
            b'"\\',
            b"9" * 5000,
            b"//[::%]",
            b"0" * 64,
        ]
    ),
    st.binary(max_size=20),
)
_headers = st.lists(st.tuples(_names, _header_values), max_size=8)
_requests = st.builds(
    lambda usual, more: usual + more, st.sampled_from([[], [(b"ce-specversion", b"1.0"), *_CONTEXT]]), _headers
)

_ANY_TEXT = st.one_of(st.text(max_size=5), st.sampled_from(["\ud800", "\0", "", "$ref", "é"]))
_ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _ANY_TEXT, st.just(10**4299)),
    lambda members: st.one_of(st.lists(members, max_size=3), st.dictionaries(_ANY_TEXT, members, max_size=3)),
    max_leaves=8,
)
_MEMBERS = st.sampled_from([*_ATTRIBUTES, "data_base64", "\ud800"])
_likely = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": _ANY_TEXT, "source": st.just("/s"), "type": st.just("t")}
)
_ANY_EVENT = st.builds(
    lambda usual, more: usual | more, _likely, st.dictionaries(_MEMBERS, st.one_of(_ANY_JSON, _ANY_TEXT), max_size=4)
)
_bodies = st.one_of(
    st.binary(max_size=30),
    st.one_of(_ANY_JSON, _ANY_EVENT, st.lists(st.one_of(_ANY_EVENT, _ANY_JSON), max_size=3)).map(
        lambda value: json.dumps(value).encode()
    ),
)


def answers_to(headers: Raw, body: bytes) -> list[IncomingEvent | bytes]:
    """Return the events of a request, and the answers to its errors."""
    try:
        outcomes = decode_http(headers, body, NOW, 2)
    except Rejected as error:
        return [answer_to(error)]
    listed = [outcomes] if isinstance(outcomes, IncomingEvent) else outcomes
    return [outcome if isinstance(outcome, IncomingEvent) else answer_to(outcome) for outcome in listed]


@settings(max_examples=500, deadline=None)
@given(_requests, _bodies)
def test_any_request_is_accepted_or_rejected(headers: Raw, body: bytes) -> None:
    """`decode_http` raises only `Rejected`, and every error becomes an answer. Only an empty batch has no event."""
    assert answers_to(headers, body) or body.strip() == b"[]"


@settings(max_examples=500, deadline=None)
@given(_ANY_EVENT)
def test_any_structured_event_is_accepted_or_rejected(event: dict[str, Any]) -> None:
    """The generated objects have most members of an event."""
    assert answers_to([(b"content-type", b"application/cloudevents+json")], json.dumps(event).encode())


def parsed(parse: Callable[[bytes], object], body: bytes) -> str:
    """Return the value with the types of its numbers, or the error."""
    try:
        return repr(parse(body))
    except Rejected as error:
        return repr((type(error), error.detail))


@settings(max_examples=500, deadline=None)
@given(_bodies, st.integers(0, 200), st.integers(0, 255))
@example(b'{"a":1,"a":1}', 0, 123)
@example(b'{"a":":","a":":"}', 0, 123)
@example(b'{"a/":1,"a\\/":1}', 0, 123)
@example(b"[" * 150 + b"]" * 150, 0, 91)
@example(b"[1e400,-0,-0.0,1E5,0.1e-400,123456789012345678901234567890.5]", 0, 91)
@example(b"[%b]" % (b"9" * 4301), 0, 91)
def test_the_fast_parser_and_the_exact_one_agree(body: bytes, position: int, byte: int) -> None:
    """For JSON, and for JSON with one changed byte, both give the same value or the same error."""
    if position < len(body):
        body = body[:position] + bytes([byte]) + body[position + 1 :]

    assert parsed(strict_json.parse, body) == parsed(strict_json.parse_for_error, body)


@settings(max_examples=500, deadline=None)
@given(_requests, _bodies)
@example([(b"ce-knativekafkapartition", b"9" * 5000)], b"{}")
@example([(b"ce-knativekafkaoffset", b"9" * 19)], b"{}")
def test_any_delivery_is_accepted_or_rejected(headers: Raw, body: bytes) -> None:
    """`decode_kafka` raises only `Rejected`, so every bad record becomes a dead letter."""
    with contextlib.suppress(Rejected):
        decode_kafka(headers, body)
    partition, offset = kafka_coordinates(headers)
    assert (partition or 0) < 2**63
    assert (offset or 0) < 2**63
