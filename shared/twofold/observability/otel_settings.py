"""Whether a function tells a collector about itself: the standard variables of OpenTelemetry decide."""

from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

from twofold.observability.telemetry import SILENT, Telemetry

Exporter = Literal["otlp", "none"]


Protocol = Literal["http/protobuf"]


class OtelSettings(BaseSettings):
    """Those variables of OpenTelemetry that decide whether anything is told; its SDK reads the others itself.

    Raises `pydantic.ValidationError`, which names the variable, for a value of the standard that Twofold doesn't know.
    """

    model_config = SettingsConfigDict(env_prefix="OTEL_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    sdk_disabled: bool = False
    metrics_exporter: Exporter | None = None
    traces_exporter: Exporter | None = None
    exporter_otlp_endpoint: str | None = None
    exporter_otlp_metrics_endpoint: str | None = None
    exporter_otlp_traces_endpoint: str | None = None
    exporter_otlp_protocol: Protocol = "http/protobuf"
    exporter_otlp_metrics_protocol: Protocol = "http/protobuf"
    exporter_otlp_traces_protocol: Protocol = "http/protobuf"

    @property
    def metrics(self) -> bool:
        """Whether metrics are told."""
        return self._wanted(self.metrics_exporter, self.exporter_otlp_metrics_endpoint)

    @property
    def traces(self) -> bool:
        """Whether traces are told."""
        return self._wanted(self.traces_exporter, self.exporter_otlp_traces_endpoint)

    def _wanted(self, exporter: Exporter | None, endpoint: str | None) -> bool:
        """By name, or by an endpoint; the standard's default, a collector on this machine, would cost everybody."""
        named = exporter == "otlp" or (exporter is None and bool(endpoint or self.exporter_otlp_endpoint))
        return named and not self.sdk_disabled

    def open_telemetry(self, function: str, topic: str) -> Telemetry:
        """Telemetry to the collector, or `SILENT`, for which nothing is imported. Call it after the fork."""
        if not (self.metrics or self.traces):
            return SILENT
        from twofold.observability.otel import open_exporting

        return open_exporting(function, topic, metrics=self.metrics, traces=self.traces)
