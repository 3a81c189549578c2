"""Spans, and the traces that events carry. The exporter keeps the spans in memory."""

from collections.abc import Iterable, Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from tests.helpers import an_event, delivered
from tests.told import Told
from twofold.cloudevents.decode_http import IncomingEvent
from twofold.errors import Conflict, Malformed, TwofoldError, Unavailable
from twofold.event.model import Event
from twofold.observability.context import TRACE_ID
from twofold.observability.telemetry import Tracing

pytestmark = pytest.mark.guarantee("R5")

OWN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HOP = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told.here()
    yield made
    made.telemetry.close()


@pytest.fixture
def tracing(told: Told) -> Tracing:
    assert told.telemetry.tracing is not None
    return told.telemetry.tracing


def an_event_of(traceparent: str | None) -> Event:
    return an_event(metadata={"service_name": "/shop"} | ({"traceparent": traceparent} if traceparent else {}))


async def published(
    tracing: Tracing, received: Sequence[IncomingEvent | TwofoldError], outcomes: Sequence[object] = ("taken",)
) -> list[IncomingEvent]:
    """Publish `received` with these outcomes. Return the events that reached the publisher."""
    taken: list[IncomingEvent] = []

    async def publish(items: Iterable[IncomingEvent | TwofoldError]) -> list[object]:
        taken.extend(item for item in items if isinstance(item, IncomingEvent))
        return list(outcomes)

    assert await tracing.publishing(received, publish) == list(outcomes)
    return taken


def identity(span: ReadableSpan) -> str:
    """Return the span's `traceparent`."""
    context = span.get_span_context()
    assert context is not None
    flags = f"{context.trace_flags:02x}"
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{flags}"


def parent(span: ReadableSpan) -> str:
    """Return the `traceparent` of the span's parent, or an empty string for a root."""
    if span.parent is None or not span.parent.is_valid:
        return ""
    return f"00-{format_trace_id(span.parent.trace_id)}-{format_span_id(span.parent.span_id)}-01"


def links(span: ReadableSpan) -> list[str]:
    return [format_span_id(link.context.span_id) for link in span.links]


async def test_an_event_without_a_trace_gets_the_span_of_publish(told: Told, tracing: Tracing) -> None:
    event = an_event_of(None)
    (taken,) = await published(tracing, [IncomingEvent.of(event)])
    (span,) = told.spans
    assert parent(span) == ""
    assert taken.event.metadata.traceparent == taken.traceparent == identity(span)


async def test_a_producers_own_trace_is_continued_and_never_replaced(told: Told, tracing: Tracing) -> None:
    """Both collections and Kafka hold the producer's value. A header of the record carries the span."""
    (taken,) = await published(tracing, [IncomingEvent.of(an_event_of(OWN))])
    (span,) = told.spans
    assert parent(span) == OWN
    headers = dict(taken.encoded.record(taken.traceparent).headers)
    assert headers["ce_traceparent"].decode() == OWN
    assert headers["traceparent"].decode() == identity(span)


async def test_an_event_without_a_trace_joins_the_trace_of_its_request(told: Told, tracing: Tracing) -> None:
    (taken,) = await published(tracing, [IncomingEvent.of(an_event_of(None))._replace(traceparent=HOP)])
    (span,) = told.spans
    assert parent(span) == HOP
    assert taken.event.metadata.traceparent == identity(span)


async def test_the_events_trace_wins_and_the_requests_span_is_a_link(told: Told, tracing: Tracing) -> None:
    await published(tracing, [IncomingEvent.of(an_event_of(OWN))._replace(traceparent=HOP)])
    (span,) = told.spans
    assert parent(span) == OWN
    assert links(span) == [HOP[36:52]]


async def test_an_invalid_traceparent_is_kept_and_starts_a_new_trace(told: Told, tracing: Tracing) -> None:
    (taken,) = await published(tracing, [IncomingEvent.of(an_event_of("garbage"))])
    (span,) = told.spans
    assert parent(span) == ""
    assert taken.event.metadata.traceparent == "garbage"
    assert taken.traceparent == identity(span)


async def test_the_span_of_publish_does_not_change_the_digest(tracing: Tracing) -> None:
    event = an_event_of(None)
    digest = event.digest
    (taken,) = await published(tracing, [IncomingEvent.of(event)])
    assert taken.event.digest == digest
    again = an_event(**{name: getattr(taken.event, name) for name in Event.model_fields})
    assert again == taken.event
    assert (again.digest, again.metadata_fields) == (digest, taken.event.metadata_fields)


async def test_an_event_of_a_batch_has_its_own_span_and_a_refused_event_has_no_span(
    told: Told, tracing: Tracing
) -> None:
    refusal = Malformed("no JSON")
    received: list[IncomingEvent | TwofoldError] = [
        IncomingEvent.of(an_event_of(OWN)),
        refusal,
        IncomingEvent.of(an_event_of(HOP)),
    ]
    await published(tracing, received, ["taken", refusal, Conflict("other content")])
    first, second = told.spans
    assert (parent(first), parent(second)) == (OWN, HOP)
    assert first.status.status_code is StatusCode.UNSET
    assert second.status.status_code is StatusCode.ERROR
    assert (second.attributes or {})["error.type"] == "identity-conflict"


async def test_a_failed_write_ends_every_span_with_its_error(told: Told, tracing: Tracing) -> None:
    async def publish(_: Iterable[IncomingEvent | TwofoldError]) -> list[object]:
        raise Unavailable("MongoDB is unavailable")

    with pytest.raises(Unavailable):
        await tracing.publishing([IncomingEvent.of(an_event_of(None)), IncomingEvent.of(an_event_of(None))], publish)
    assert [(span.attributes or {})["error.type"] for span in told.spans] == ["unavailable", "unavailable"]


async def stored(tracing: Tracing, headers: Sequence[tuple[bytes, bytes]], outcome: str = "stored") -> None:
    async def store(_: Sequence[tuple[bytes, bytes]], __: bytes) -> str:
        return outcome

    assert await tracing.storing(headers, b"{}", store) == outcome


async def test_store_continues_the_trace_that_the_record_carries(told: Told, tracing: Tracing) -> None:
    """The span of KafkaSource's request is a link, because it may never be exported."""
    headers, _ = delivered(an_event_of(OWN), partition=2, offset=7)
    await stored(tracing, [*headers, (b"traceparent", HOP.encode())])
    (span,) = told.spans
    assert parent(span) == OWN
    assert links(span) == [HOP[36:52]]
    about = span.attributes or {}
    assert (about["messaging.destination.partition.id"], about["messaging.kafka.offset"]) == ("2", "7")
    assert span.status.status_code is StatusCode.UNSET


async def test_store_joins_the_request_of_an_event_that_has_no_trace(told: Told, tracing: Tracing) -> None:
    headers, _ = delivered(an_event_of(None))
    await stored(tracing, [*headers, (b"traceparent", HOP.encode())])
    assert parent(told.spans[0]) == HOP


async def test_a_dead_letter_ends_its_span_with_the_reason(told: Told, tracing: Tracing) -> None:
    await stored(tracing, [], "malformed")
    assert (told.spans[0].attributes or {})["error.type"] == "malformed"


async def test_a_log_line_names_the_trace(told: Told, tracing: Tracing) -> None:
    await published(tracing, [IncomingEvent.of(an_event_of(None))])
    assert TRACE_ID.get() == identity(told.spans[0])[3:35]
