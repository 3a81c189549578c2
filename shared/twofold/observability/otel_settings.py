"""The standard variables of OpenTelemetry: they decide whether a function sends telemetry, and where."""

from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

from twofold.observability.telemetry import SILENT, Telemetry

Exporter = Literal["otlp", "none"]
Protocol = Literal["http/protobuf"]


class OtelSettings(BaseSettings):
    """The variables for sending or not sending. OpenTelemetry's SDK reads its further variables itself.

    An unsupported value ends the start with `pydantic.ValidationError`, which names the variable.
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
        """True if the function sends metrics."""
        return self._sends(self.metrics_exporter, self.exporter_otlp_metrics_endpoint)

    @property
    def traces(self) -> bool:
        """True if the function sends traces."""
        return self._sends(self.traces_exporter, self.exporter_otlp_traces_endpoint)

    def _sends(self, exporter: Exporter | None, endpoint: str | None) -> bool:
        """Return True for an exporter or an endpoint.

        The standard's default is a collector on this machine. Twofold sends nothing by default, because most functions
        have no such collector.
        """
        named = exporter == "otlp" or (exporter is None and bool(endpoint or self.exporter_otlp_endpoint))
        return named and not self.sdk_disabled

    def open_telemetry(self, function: str, topic: str) -> Telemetry:
        """Return the telemetry of a function, or `SILENT` without importing OpenTelemetry. Call this after the fork."""
        if not (self.metrics or self.traces):
            return SILENT
        from twofold.observability.otel import open_exporting  # noqa: PLC0415 - see the docstring

        return open_exporting(function, topic, metrics=self.metrics, traces=self.traces)
