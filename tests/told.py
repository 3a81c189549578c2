"""Telemetry for tests, which sends nothing."""

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
    """Telemetry that stays in this process, and what it was told."""

    telemetry: OpenTelemetry
    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter
    _values: dict[tuple[str, frozenset[tuple[str, Any]]], float] = field(default_factory=dict)

    @classmethod
    def here(cls) -> "Told":
        """A new one, in which every span is exported as it ends."""
        reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
        return cls(OpenTelemetry("test", "twofold.events", reader, SimpleSpanProcessor(exporter)), reader, exporter)

    def value(self, metric: Metric, attributes: Mapping[str, Any] | None = None) -> float:
        """The sum, the gauge's last value, or how often was measured, over the points with these attributes."""
        self._collect()
        wanted = set((attributes or {}).items())
        return sum(value for (name, about), value in self._values.items() if name == metric.name and wanted <= about)

    def _collect(self) -> None:
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for metric in resource.scope_metrics[0].metrics:
                for point in metric.data.data_points:
                    value = point.value if isinstance(point, NumberDataPoint) else point.count
                    self._values[metric.name, frozenset((point.attributes or {}).items())] = value

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Those that have ended."""
        return self.exporter.get_finished_spans()
