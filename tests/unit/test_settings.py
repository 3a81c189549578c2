"""Settings come from the environment. A wrong setting ends the start with its name."""

import subprocess
import sys

import pytest
from pydantic import SecretStr, ValidationError

from dev.paths import ROOT
from dev.process.child import plain_environment
from twofold.settings import Settings

pytestmark = pytest.mark.guarantee("R34")

URI = "mongodb://user:very-secret@db.local/"


def settings(**given: object) -> Settings:
    return Settings.model_validate({"mongodb_uri": URI} | given)


def in_environment(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process with this environment alone."""
    command = [sys.executable, "-c", f"from twofold.settings import Settings; {code}"]
    return subprocess.run(command, env=plain_environment() | environment, capture_output=True, text=True, check=False)


def test_a_variable_has_the_name_of_its_field() -> None:
    run = in_environment(
        "s = Settings(); print(s.mongodb_uri.get_secret_value(), s.retention_days, s.kafka_topic)",
        MONGODB_URI=URI,
        RETENTION_DAYS="7.5",
        KAFKA_TOPIC="orders",
    )

    assert run.stdout == f"{URI} 7.5 orders\n"


def test_the_start_fails_without_a_database_and_names_the_setting() -> None:
    run = in_environment("Settings()")

    assert run.returncode != 0
    assert "mongodb_uri" in run.stderr


@pytest.mark.parametrize("name", ["publish", "pod_events", "relay"])
def test_a_function_that_sends_does_not_start_without_a_broker(name: str) -> None:
    """Its events would wait for a relay that has no broker either."""
    command = [sys.executable, "-c", f"import functions.{name}.main"]
    environment = plain_environment() | {"MONGODB_URI": URI, "AUTH": "off", "KAFKA_BOOTSTRAP_SERVERS": ""}
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode != 0
    assert "for Settings\nkafka_bootstrap_servers" in run.stderr


def test_the_error_names_every_wrong_setting_and_shows_no_value() -> None:
    """Errors are written to logs. A password in the wrong variable must not be."""
    with pytest.raises(ValidationError) as caught:
        settings(mongodb_uri=5, retention_days="hunter2", kafka_security_protocol="hunter2")

    assert {error["loc"][0] for error in caught.value.errors()} == {
        "mongodb_uri",
        "retention_days",
        "kafka_security_protocol",
    }
    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(settings(kafka_sasl_password="very-secret"))

    assert "very-secret" not in shown


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings().mongodb_uri = SecretStr("other")  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention_days", 0),
        ("retention_days", -1),
        ("mongodb_timeout_s", 0),
        ("max_body_bytes", 0),
        ("max_batch_events", 0),
        ("max_record_bytes", -1),
        ("max_delivery_bytes", 16 * 1024 * 1024),
        ("relay_max_tries", 0),
        ("group_commit_events", 0),
        ("group_commit_wait_ms", -0.1),
        ("group_commit_capacity", 0),
        ("send_capacity", 1.5),
        ("kafka_security_protocol", "plaintext"),
        ("kafka_sasl_mechanism", "GSSAPI"),
        ("setup_topic_partitions", 0),
    ],
)
def test_an_invalid_value_is_rejected_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**{name: value})

    assert [error["loc"] for error in caught.value.errors()] == [(name,)]


def test_only_the_database_is_required() -> None:
    """The defaults of the rest fit together."""
    usual = settings()

    assert usual.retention_days == 30
    assert usual.mongodb_timeout_s < 5, "a caller gets a 503 within 5 s"
    assert usual.relay_budget_s < 60, "a run ends before the next begins"
    assert usual.pods_budget_s < 60, "a listing ends before the next begins"
    assert usual.max_record_bytes < usual.max_body_bytes
    assert usual.max_record_bytes < usual.max_delivery_bytes < 16 * 1024 * 1024
    assert usual.group_commit_capacity >= usual.max_batch_events


@pytest.mark.guarantee("G4")
def test_a_record_larger_than_every_dead_letter_is_rejected_at_the_start() -> None:
    """`store` and the dead-letter sink would answer 413, and the record would be lost."""
    margin = 64 * 1024

    assert settings(max_delivery_bytes=100_000 + margin, max_record_bytes=100_000).max_message_bytes == 100_000 + margin
    with pytest.raises(ValidationError, match="MAX_DELIVERY_BYTES must be at least 165536, which is MAX_RECORD_BYTES"):
        settings(max_delivery_bytes=100_000 + margin - 1, max_record_bytes=100_000)


@pytest.mark.guarantee("G1")
def test_a_batch_larger_than_the_queue_is_rejected_at_the_start() -> None:
    """Every try to send it would end with a 503."""
    assert settings(max_batch_events=50, group_commit_capacity=50).max_batch_events == 50
    with pytest.raises(ValidationError, match="GROUP_COMMIT_CAPACITY must be at least MAX_BATCH_EVENTS"):
        settings(max_batch_events=51, group_commit_capacity=50)
