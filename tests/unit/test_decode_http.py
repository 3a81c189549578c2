"""A producer's request: the fast encoding, and the trace of the request."""

import json
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import assume, example, given, settings

from tests.carried import raw
from tests.helpers import an_event
from tests.helpers import structured as as_structured
from tests.strategies import NOW, Attributes, attributes, payloads
from twofold.cloudevents.attributes import build_event
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.encode import MAX_ATTRIBUTES_BYTES, EncodedEvent, check_attributes_size, encode_http
from twofold.cloudevents.fast_encode import encode_fast
from twofold.errors import Invalid, Rejected, TooLarge

pytestmark = pytest.mark.guarantee("R5", "R26")

BATCH = [(b"content-type", b"application/cloudevents-batch+json")]
_PLAIN_EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-07-01T00:00:00.000Z"}


@settings(max_examples=300, deadline=None)
@given(attributes(), payloads)
@example({**_PLAIN_EVENT, "time": "2026-07-01T00:00:00.1239+02:00", "eventversion": "1.0"}, {})
@example({**_PLAIN_EVENT, "id": str(uuid4()), "knativekafkaoffset": "7", "comexampleother": "1"}, {"a": 1e-7})
@example({**_PLAIN_EVENT, "knativeerrorcode": "500"}, {})
@example({name: value for name, value in _PLAIN_EVENT.items() if name != "time"}, {"a": [1]})
@example({**_PLAIN_EVENT, "datacontenttype": "application/vnd.order+json", "traceparent": "t"}, {"$id": None})
def test_the_fast_encoding_equals_the_encoding_of_the_event(given_: Attributes, payload: dict[str, Any]) -> None:
    """Nearly all events take the fast way. The way over `Event` checks an event in full."""
    encoded = encode_fast(dict(given_), payload, NOW)

    assume(encoded is not None)
    slow = EncodedEvent.of(build_event(dict(given_), payload, NOW))
    assert encoded == slow._replace(is_plain=True)
    assert sorted(encoded.record().headers) == sorted(slow.record().headers)
    assert encoded.record()[:2] == slow.record()[:2]


@pytest.mark.parametrize("more", [{}, {"time": "2026-07-01T02:00:00+02:00"}, {"id": "order-7", "subject": "a b"}])
def test_usual_events_take_the_fast_way(more: dict[str, str]) -> None:
    assert encode_fast(_PLAIN_EVENT | more, {"a": 1.5}, NOW) is not None


HOP = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def hops(content_type: str, body: object, *extra: tuple[str, str]) -> list[str | None]:
    """Return the trace of every event in a request with a `traceparent`."""
    headers = [("content-type", content_type), ("traceparent", HOP), *extra]
    request = [(name.encode(), value.encode()) for name, value in headers]
    decoded = decode_http(request, json.dumps(body).encode(), NOW, 10)
    outcomes = [decoded] if isinstance(decoded, IncomingEvent) else decoded
    return [outcome.traceparent for outcome in outcomes if isinstance(outcome, IncomingEvent)]


def test_an_event_gets_the_trace_of_its_request_in_every_mode() -> None:
    event = an_event()
    binary_headers = [(name, value) for name, value in encode_http(event)[0].items() if name != "content-type"]
    assert hops("application/json", {}, *binary_headers) == [HOP]
    assert hops("application/cloudevents+json", as_structured(event)) == [HOP]
    assert hops("application/cloudevents-batch+json", [as_structured(event)] * 2) == [HOP, HOP]


@pytest.mark.parametrize("most", [1, 3])
def test_a_batch_has_at_most_the_given_number_of_events(most: int) -> None:
    events = [as_structured(an_event()) for _ in range(most + 1)]
    taken = decode_http(BATCH, json.dumps(events[:most]).encode(), NOW, most)
    assert not isinstance(taken, IncomingEvent)
    assert [type(each) for each in taken] == [IncomingEvent] * most
    with pytest.raises(TooLarge):
        decode_http(BATCH, json.dumps(events).encode(), NOW, most)


def batch_of(*members: object) -> list[IncomingEvent | Rejected]:
    decoded = decode_http(BATCH, json.dumps(members).encode(), NOW, 10)
    assert not isinstance(decoded, IncomingEvent)
    return list(decoded)


def test_an_empty_batch_is_valid() -> None:
    assert batch_of() == []


def test_the_error_of_a_batch_member_has_its_id() -> None:
    """The id helps only if it is a text: an error without an `id` belongs to its place in the batch."""
    event = as_structured(an_event())
    wrong = [
        event | {"id": "7", "time": "never"},
        {"id": "8"},
        {"id": 9},
        {"id": ""},
        {"specversion": "1.0"},
        5,
        ["id"],
    ]
    errors = batch_of(event, *wrong)[1:]
    assert [error.given_id for error in errors if isinstance(error, Rejected)] == ["7", "8", *[None] * 5]


def test_the_attributes_of_an_event_have_a_bound_together() -> None:
    names = [f"a{number:03}" for number in range(50)]
    free = MAX_ATTRIBUTES_BYTES - sum(map(len, names))
    values = [free // 50 + (number < free % 50) for number in range(50)]
    check_attributes_size([(name, "x" * size) for name, size in zip(names, values, strict=True)])
    with pytest.raises(Invalid):
        check_attributes_size(
            [(name, "x" * (size + (name == "a000"))) for name, size in zip(names, values, strict=True)]
        )


@pytest.mark.parametrize("wrong", ["", "what", f"01{HOP[2:]}x", HOP.upper(), f"00-{'0' * 32}-b7ad6b7169203331-01"])
def test_an_invalid_trace_is_ignored(wrong: str) -> None:
    """The header belongs to the transport, so the event is accepted."""
    headers, body = encode_http(an_event())
    incoming = decode_http(raw(headers | {"traceparent": wrong}), body, NOW, 1)
    assert isinstance(incoming, IncomingEvent)
    assert incoming.traceparent is None
