"""Telemetry by OpenTelemetry. Only this module imports its packages, and only a function with a collector imports it.

A trace follows an event, not a request:

1. An event with a `traceparent` continues this trace (CloudEvents' extension for distributed tracing). The attribute
   names the trace in which the event began, so no function may replace it.
2. An event without a `traceparent` joins the trace of its request, and gets the span of `publish` as its `traceparent`.
3. If the event and the request have different traces, the event's trace wins, and the request's span becomes a link.
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
"""The longest wait of `close` for the collector, in seconds."""

_W3C = TraceContextTextMapPropagator()


class OpenTelemetry(Telemetry):
    """Telemetry to a collector. The threads of the SDK send it, so make this object after the fork.

    Without a `reader` there are no metrics, and without a `processor` there are no traces.
    """

    def __init__(
        self, function: str, topic: str, reader: MetricReader | None = None, processor: SpanProcessor | None = None
    ) -> None:
        resource = _resource(function)
        self._closing: list[Callable[[], None]] = []
        self._instruments: dict[str, Callable[[float, MetricAttributes | None], None]] = {}
        if reader is not None:
            meters = MeterProvider([reader], resource, shutdown_on_exit=False)
            self._closing.append(meters.shutdown)
            self._instruments = {metric.name: _instrument(meters.get_meter("twofold"), metric) for metric in METRICS}
        if processor is not None:
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracers.add_span_processor(processor)
            self._closing.append(tracers.shutdown)
            self.tracing = EventTracing(tracers.get_tracer("twofold"), topic)

    def record(self, metric: Metric, value: float, attributes: MetricAttributes | None = None) -> None:
        """Add `value` to a counter, or record it in a histogram or a gauge."""
        if instrument := self._instruments.get(metric.name):
            instrument(value, attributes)

    @contextmanager
    def committing(self, collection: str, size: int) -> Iterator[None]:
        """Record the write that the block does: its size, its duration, and its error."""
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
        """Send the last values, and wait `CLOSE_S` at most."""
        threads = [threading.Thread(target=close, name="telemetry-closing", daemon=True) for close in self._closing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(CLOSE_S)


def open_exporting(function: str, topic: str, *, metrics: bool, traces: bool) -> OpenTelemetry:
    """Return the telemetry to the collector in the standard `OTEL_*` variables."""
    return OpenTelemetry(
        function,
        topic,
        PeriodicExportingMetricReader(OTLPMetricExporter()) if metrics else None,
        BatchSpanProcessor(OTLPSpanExporter()) if traces else None,
    )


def _resource(function: str) -> Resource:
    """Return the sender's names. The environment's names win. A process is an instance, with counters of its own."""
    ours = Resource.create({"service.name": f"twofold-{function}", "service.instance.id": str(uuid4())})
    return ours.merge(OTELResourceDetector().detect())


def _instrument(meter: Meter, metric: Metric) -> Callable[[float, MetricAttributes | None], None]:
    if metric.kind == "counter":
        return meter.create_counter(metric.name, metric.unit, metric.description).add
    if metric.kind == "gauge":
        return meter.create_gauge(metric.name, metric.unit, metric.description).set
    buckets = metric.buckets
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=buckets
    ).record


class EventTracing(Tracing):
    """Spans by the semantic conventions for messaging and CloudEvents."""

    def __init__(self, tracer: Tracer, topic: str) -> None:
        self._tracer = tracer
        self._topic = topic
        self._system = {"messaging.system": "kafka", "messaging.destination.name": topic}

    async def publishing(
        self,
        received: Iterable[IncomingEvent | TwofoldError],
        publish: Callable[[Iterable[IncomingEvent | TwofoldError]], Awaitable[list[Outcome]]],
    ) -> list[Outcome]:
        """Call `publish`. Every event has a span of kind PRODUCER, which its Kafka record continues."""
        items = list(received)
        spans = [None if isinstance(item, TwofoldError) else self._publish_span(item) for item in items]
        traced = [_with_span(item, span) for item, span in zip(items, spans, strict=True)]
        if len(spans) == 1:
            _log_trace_of(spans[0])
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
        self, headers: RawHeaders, body: bytes, store: Callable[[RawHeaders, bytes], Awaitable[str]]
    ) -> str:
        """Call `store` in a span of kind CONSUMER. An outcome other than `stored` or `duplicate` is an error."""
        attributes = {name: value.decode("latin-1") for name, value in headers}
        parent, links = _lineage(attributes.get(b"ce-traceparent"), attributes.get(b"traceparent"))
        span = self._tracer.start_span(
            f"process {self._topic}",
            parent,
            SpanKind.CONSUMER,
            self._system
            | {
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.partition.id": attributes.get(b"ce-knativekafkapartition", ""),
                "messaging.kafka.offset": attributes.get(b"ce-knativekafkaoffset", ""),
                "cloudevents.event_id": attributes.get(b"ce-id", ""),
                "cloudevents.event_source": attributes.get(b"ce-source", ""),
                "cloudevents.event_type": attributes.get(b"ce-type", ""),
            },
            links,
        )
        _log_trace_of(span)
        with _ended([span]):
            outcome = await store(headers, body)
            if outcome not in ("stored", "duplicate"):
                _failed(span, outcome)
            return outcome


@contextmanager
def _ended(spans: Sequence[Span | None]) -> Iterator[None]:
    """End the spans with the block. An error of the block becomes the error of every span."""
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
    """Return the parent of a span and its links.

    `own` is the event's `traceparent`, `hop` is the request's. The first valid context is the parent: the event's, then
    the request's, then the current span. The following contexts are links.
    """
    contexts = [_span_context(own), _span_context(hop), trace.get_current_span().get_span_context()]
    parent, *rest = [context for context in contexts if context.is_valid] or [trace.INVALID_SPAN_CONTEXT]
    links = [Link(context) for context in rest if context.span_id != parent.span_id]
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()), links


def _span_context(traceparent: str | None) -> SpanContext:
    """Return the span context of a `traceparent`. An invalid `traceparent` gives an invalid span context."""
    extracted = _W3C.extract({"traceparent": traceparent or ""}, Context())
    return trace.get_current_span(extracted).get_span_context()


def _with_span(item: IncomingEvent | TwofoldError, span: Span | None) -> IncomingEvent | TwofoldError:
    """Return the event with the span of `publish` as its hop, and as its own `traceparent` if that is absent."""
    if span is None or isinstance(item, TwofoldError):
        return item
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    traceparent = carrier["traceparent"]
    return item._replace(encoded=item.encoded.within(traceparent), traceparent=traceparent)


def _log_trace_of(span: Span | None) -> None:
    if span is not None:
        TRACE_ID.set(trace.format_trace_id(span.get_span_context().trace_id))
