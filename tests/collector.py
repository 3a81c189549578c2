"""A collector for tests: it receives telemetry by OTLP over HTTP, and keeps it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

Named = dict[str, str | int]


class Seen(NamedTuple):
    """A span. Its ids are hexadecimal as in `traceparent`, and an absent id is empty."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[str]
    """The ids of the linked spans."""
    attributes: Named


class Point(NamedTuple):
    """A value of a metric: a sum, a gauge, or the number of measurements in a histogram."""

    service: str
    name: str
    unit: str
    value: float
    attributes: Named


@dataclass
class Collector:
    """The spans and points that came so far."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """Return the variables of a function that sends here, at short intervals."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def value(self, name: str, **attributes: str) -> float:
        """Return the highest value of a metric among the points with these attributes, or 0. A `_` stands for a dot."""
        wanted = {attribute.replace("_", "."): value for attribute, value in attributes.items()}
        found = (p.value for p in self.points if p.name == name and wanted.items() <= p.attributes.items())
        return max(found, default=0)

    def take(self, path: str, body: bytes) -> None:
        """Keep the content of a function's request."""
        if path == "/v1/traces":
            self.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
        elif path == "/v1/metrics":
            self.points.extend(_points(ExportMetricsServiceRequest.FromString(body)))


def _named(attributes: Any) -> Named:
    return {attribute.key: _value(attribute) for attribute in attributes}


def _value(attribute: KeyValue) -> str | int:
    value = attribute.value
    return value.int_value if value.WhichOneof("value") == "int_value" else value.string_value


def _spans(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        service = str(_named(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    service,
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    [link.span_id.hex() for link in span.links],
                    _named(span.attributes),
                )


def _points(request: ExportMetricsServiceRequest) -> Iterator[Point]:
    for resource in request.resource_metrics:
        service = str(_named(resource.resource.attributes)["service.name"])
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
                    is_histogram = metric.HasField("histogram")
                    value = point.count if is_histogram else point.as_double or point.as_int
                    yield Point(service, metric.name, metric.unit, value, _named(point.attributes))


@contextmanager
def collector() -> Iterator[Collector]:
    """Serve a collector on a port of this machine during the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.take(self.path, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
