"""Whether a function tells a collector about itself, by OpenTelemetry's variables."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from dev.process.child import plain_environment
from twofold.observability.otel_settings import OtelSettings

HERE = "http://127.0.0.1:4318"


pytestmark = pytest.mark.guarantee("G7")


def in_environment(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process that has nothing else in its environment."""
    command = [sys.executable, "-c", f"from twofold.reporting import Reporting; {code}"]
    return subprocess.run(command, env=plain_environment() | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("said", "metrics", "traces"),
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
def test_the_standard_variables_decide_what_is_told(said: dict[str, object], metrics: bool, traces: bool) -> None:
    reporting = OtelSettings.model_validate(said)
    assert (reporting.metrics, reporting.traces) == (metrics, traces)


def test_the_environment_is_read_by_the_standards_names_and_what_is_empty_is_not_there() -> None:
    run = in_environment(
        "e = Reporting(); print(e.metrics, e.traces)",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=HERE,
        OTEL_EXPORTER_OTLP_ENDPOINT="",
        OTEL_METRICS_EXPORTER="",
    )
    assert run.stdout == "False True\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("traces_exporter", "zipkin"), ("exporter_otlp_protocol", "grpc"), ("sdk_disabled", "perhaps")],
)
def test_a_value_that_means_nothing_here_fails_at_the_start_by_name(field: str, value: str) -> None:
    with pytest.raises(ValidationError, match=field):
        OtelSettings.model_validate({field: value})


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    """What isn't there costs nothing."""
    run = in_environment(
        "import sys, twofold.http, twofold.publishing, twofold.storing, twofold.relaying; "
        "from twofold.telemetry import SILENT; "
        "print(Reporting().open('publish', 'topic') is SILENT, "
        "[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert run.stdout == "True []\n"
