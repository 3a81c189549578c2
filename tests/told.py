"""Telemetry for tests, which stays in this process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from twofold.observability.metrics import Metric
from twofold.observability.otel import OpenTelemetry


@dataclass
class Told:
    """Telemetry in memory, with its recorded values and spans."""

    telemetry: OpenTelemetry
    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter
    _values: dict[tuple[str, frozenset[tuple[str, Any]]], float] = field(default_factory=dict)

    @classmethod
    def here(cls) -> "Told":
        """Make telemetry that exports a span when the span ends."""
        reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
        return cls(OpenTelemetry("test", "twofold.events", reader, SimpleSpanProcessor(exporter)), reader, exporter)

    def value(self, metric: Metric, attributes: Mapping[str, Any] | None = None) -> float:
        """Return the sum, the gauge's last value, or the number of measurements of points with these attributes."""
        self._collect()
        wanted = set((attributes or {}).items())
        return sum(value for (name, given), value in self._values.items() if name == metric.name and wanted <= given)

    def _collect(self) -> None:
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for metric in resource.scope_metrics[0].metrics:
                for point in metric.data.data_points:
                    value = point.value if isinstance(point, NumberDataPoint) else point.count
                    self._values[metric.name, frozenset((point.attributes or {}).items())] = value

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The ended spans."""
        return self.exporter.get_finished_spans()
