"""Telemetry by OpenTelemetry: the only importer of its packages, and imported only where a collector is named.

A trace follows an event, not a request. The trace of an event is that of its own `traceparent` (CloudEvents' extension
for distributed tracing: the starting trace, which nobody on the way may replace). An event without one joins the
trace of the request that brings it, and is given the span of `publish` as its own. Where the event and the request
say different things, the event wins, and the request's span becomes a link.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_http import IncomingEvent
from twofold.errors import TwofoldError
from twofold.observability.context import TRACE_ID
from twofold.observability.metrics import COMMIT_SIZE, COMMIT_TIME, METRICS, Metric, MetricAttributes
from twofold.observability.telemetry import Outcome, Telemetry, Tracing

CLOSE_S = 5.0
"""How long closing waits for the collector."""


_W3C = TraceContextTextMapPropagator()


class OpenTelemetry(Telemetry):
    """Tells a collector, from threads of the SDK's own. Make it after the fork.

    Without a reader it measures nothing; without a processor it traces nothing.
    """

    def __init__(
        self, function: str, topic: str, reader: MetricReader | None = None, processor: SpanProcessor | None = None
    ) -> None:
        resource = _resource(function)
        self._closing: list[Callable[[], None]] = []
        self._tell: dict[str, Callable[[float, MetricAttributes | None], None]] = {}
        if reader is not None:
            meters = MeterProvider([reader], resource, shutdown_on_exit=False)
            self._closing.append(meters.shutdown)
            self._tell = {metric.name: _instrument(meters.get_meter("twofold"), metric) for metric in METRICS}
        if processor is not None:
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracers.add_span_processor(processor)
            self._closing.append(tracers.shutdown)
            self.tracing = EventTracing(tracers.get_tracer("twofold"), topic)

    def record(self, metric: Metric, value: float, attributes: MetricAttributes | None = None) -> None:
        """Add `value` to a counter, or note it."""
        if tell := self._tell.get(metric.name):
            tell(value, attributes)

    @contextmanager
    def committing(self, collection: str, size: int) -> Iterator[None]:
        """Note the size of the write that the block does, how long it took, and what it failed with."""
        about: dict[str, str | int] = {"db.system.name": "mongodb", "db.operation.name": "insert"}
        about["db.collection.name"] = collection
        start = time.perf_counter()
        try:
            yield
        except TwofoldError as error:
            about["error.type"] = error.title
            raise
        finally:
            self.record(COMMIT_SIZE, size, {"db.collection.name": collection})
            self.record(COMMIT_TIME, time.perf_counter() - start, about)

    def close(self) -> None:
        """Send what is left, and wait for that `CLOSE_S` at most."""
        threads = [threading.Thread(target=close, name="telemetry-closing", daemon=True) for close in self._closing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(CLOSE_S)


def open_exporting(function: str, topic: str, *, metrics: bool, traces: bool) -> OpenTelemetry:
    """Telemetry that goes where the standard `OTEL_*` variables say."""
    return OpenTelemetry(
        function,
        topic,
        PeriodicExportingMetricReader(OTLPMetricExporter()) if metrics else None,
        BatchSpanProcessor(OTLPSpanExporter()) if traces else None,
    )


def _resource(function: str) -> Resource:
    """Who says it. The environment's names win; each process is an instance, since each has counters of its own."""
    ours = Resource.create({"service.name": f"twofold-{function}", "service.instance.id": str(uuid4())})
    return ours.merge(OTELResourceDetector().detect())


def _instrument(meter: Meter, metric: Metric) -> Callable[[float, MetricAttributes | None], None]:
    if metric.kind == "counter":
        return meter.create_counter(metric.name, metric.unit, metric.says).add
    if metric.kind == "gauge":
        return meter.create_gauge(metric.name, metric.unit, metric.says).set
    buckets = metric.buckets
    return meter.create_histogram(
        metric.name, metric.unit, metric.says, explicit_bucket_boundaries_advisory=buckets
    ).record


class EventTracing(Tracing):
    """Spans named and described by the semantic conventions for messaging and CloudEvents."""

    def __init__(self, tracer: Tracer, topic: str) -> None:
        self._tracer = tracer
        self._topic = topic
        self._system = {"messaging.system": "kafka", "messaging.destination.name": topic}

    async def publishing(
        self,
        received: Iterable[IncomingEvent | TwofoldError],
        publish: Callable[[Iterable[IncomingEvent | TwofoldError]], Awaitable[list[Outcome]]],
    ) -> list[Outcome]:
        """Call `publish`, each event within a span of kind PRODUCER, from which its Kafka record carries on."""
        items = list(received)
        spans = [None if isinstance(item, TwofoldError) else self._publish_span(item) for item in items]
        traced = [_carrying(item, span) for item, span in zip(items, spans, strict=True)]
        if len(spans) == 1:
            _tell_logs(spans[0])
        with _ended(spans):
            outcomes = await publish(traced)
            for span, outcome in zip(spans, outcomes, strict=True):
                if span is not None and isinstance(outcome, TwofoldError):
                    _failed(span, outcome.title)
            return outcomes

    def _publish_span(self, item: IncomingEvent) -> Span:
        attributes = item.encoded.attributes
        parent, links = _lineage(attributes.get("traceparent"), item.traceparent)
        return self._tracer.start_span(
            f"send {self._topic}",
            parent,
            SpanKind.PRODUCER,
            self._system
            | {
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.message.id": str(item.encoded.event_id),
                "cloudevents.event_id": attributes["id"],
                "cloudevents.event_source": attributes["source"],
                "cloudevents.event_type": attributes["type"],
            },
            links,
        )

    async def storing(
        self, headers: RawHeaders, body: bytes, take: Callable[[RawHeaders, bytes], Awaitable[str]]
    ) -> str:
        """Call `take` within a span of kind CONSUMER."""
        said = {name: value.decode("latin-1") for name, value in headers}
        parent, links = _lineage(said.get(b"ce-traceparent"), said.get(b"traceparent"))
        span = self._tracer.start_span(
            f"process {self._topic}",
            parent,
            SpanKind.CONSUMER,
            self._system
            | {
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.partition.id": said.get(b"ce-knativekafkapartition", ""),
                "messaging.kafka.offset": said.get(b"ce-knativekafkaoffset", ""),
                "cloudevents.event_id": said.get(b"ce-id", ""),
                "cloudevents.event_source": said.get(b"ce-source", ""),
                "cloudevents.event_type": said.get(b"ce-type", ""),
            },
            links,
        )
        _tell_logs(span)
        with _ended([span]):
            became = await take(headers, body)
            if became not in ("stored", "duplicate"):
                _failed(span, became)
            return became


@contextmanager
def _ended(spans: Sequence[Span | None]) -> Iterator[None]:
    """End the spans with the block; an error that leaves it is the outcome of each."""
    try:
        yield
    except BaseException as error:
        for span in spans:
            if span is not None:
                _failed(span, error.title if isinstance(error, TwofoldError) else type(error).__name__)
        raise
    finally:
        for span in spans:
            if span is not None:
                span.end()


def _failed(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _lineage(own: str | None, hop: str | None) -> tuple[Context, list[Link]]:
    """The parent: what the event says of itself, else its request, else the caller's own span; the others are links."""
    said = [_span_context(own), _span_context(hop), trace.get_current_span().get_span_context()]
    first, *others = [context for context in said if context.is_valid] or [trace.INVALID_SPAN_CONTEXT]
    links = [Link(other) for other in others if other.span_id != first.span_id]
    return trace.set_span_in_context(trace.NonRecordingSpan(first), Context()), links


def _span_context(traceparent: str | None) -> SpanContext:
    """What is no valid `traceparent` is none."""
    extracted = _W3C.extract({"traceparent": traceparent or ""}, Context())
    return trace.get_current_span(extracted).get_span_context()


def _carrying(item: IncomingEvent | TwofoldError, span: Span | None) -> IncomingEvent | TwofoldError:
    """The event with the span of `publish` for its hop, and as its own where it has none."""
    if span is None or isinstance(item, TwofoldError):
        return item
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    traceparent = carrier["traceparent"]
    return item._replace(encoded=item.encoded.within(traceparent), traceparent=traceparent)


def _tell_logs(span: Span | None) -> None:
    if span is not None:
        TRACE_ID.set(trace.format_trace_id(span.get_span_context().trace_id))
