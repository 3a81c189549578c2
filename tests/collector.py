"""A collector that tests serve: it takes what functions send by OTLP over HTTP, and remembers it."""

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
    """A span, in the terms of `traceparent`: identities are in hexadecimal, and empty where there is none."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[str]
    """The identities of the linked spans."""
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
    """What was received so far."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What a function must be told; the pauses are short, so that a test need not wait."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def value(self, name: str, **attributes: str) -> float:
        """The highest value of a metric among the points that have these attributes, `_` for the dots; else 0."""
        wanted = {attribute.replace("_", "."): value for attribute, value in attributes.items()}
        found = (p.value for p in self.points if p.name == name and wanted.items() <= p.attributes.items())
        return max(found, default=0)

    def take(self, path: str, body: bytes) -> None:
        """Take a request of a function."""
        if path == "/v1/traces":
            self.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
        elif path == "/v1/metrics":
            self.points.extend(_points(ExportMetricsServiceRequest.FromString(body)))


def _named(attributes: Any) -> Named:
    return {one.key: _value(one) for one in attributes}


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
    """A collector on a port of this machine, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.take(self.path, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
