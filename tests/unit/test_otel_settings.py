"""OpenTelemetry's variables decide whether a function sends telemetry."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from dev.process.child import plain_environment
from twofold.observability.otel_settings import OtelSettings

HERE = "http://127.0.0.1:4318"

pytestmark = pytest.mark.guarantee("G7")


def in_environment(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process with this environment only."""
    command = [sys.executable, "-c", f"from twofold.observability.otel_settings import OtelSettings; {code}"]
    return subprocess.run(command, env=plain_environment() | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("variables", "metrics", "traces"),
    [
        ({}, False, False),
        ({"exporter_otlp_endpoint": HERE}, True, True),
        ({"exporter_otlp_metrics_endpoint": HERE}, True, False),
        ({"exporter_otlp_traces_endpoint": HERE}, False, True),
        ({"metrics_exporter": "otlp"}, True, False),
        ({"exporter_otlp_endpoint": HERE, "traces_exporter": "none"}, True, False),
        ({"exporter_otlp_endpoint": HERE, "sdk_disabled": True}, False, False),
    ],
)
def test_the_standard_variables_choose_metrics_and_traces(
    variables: dict[str, object], metrics: bool, traces: bool
) -> None:
    settings = OtelSettings.model_validate(variables)
    assert (settings.metrics, settings.traces) == (metrics, traces)


def test_the_variables_have_standard_names_and_an_empty_value_is_absent() -> None:
    run = in_environment(
        "settings = OtelSettings(); print(settings.metrics, settings.traces)",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=HERE,
        OTEL_EXPORTER_OTLP_ENDPOINT="",
        OTEL_METRICS_EXPORTER="",
    )
    assert run.stdout == "False True\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("traces_exporter", "zipkin"), ("exporter_otlp_protocol", "grpc"), ("sdk_disabled", "perhaps")],
)
def test_an_unsupported_value_fails_by_name(field: str, value: str) -> None:
    with pytest.raises(ValidationError, match=field):
        OtelSettings.model_validate({field: value})


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    """A function without a collector starts without this cost."""
    run = in_environment(
        "import sys, twofold.web.function, twofold.write.publisher, twofold.write.store, twofold.write.relay; "
        "from twofold.observability.telemetry import SILENT; "
        "print(OtelSettings().open_telemetry('publish', 'topic') is SILENT, "
        "[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert run.stdout == "True []\n"
