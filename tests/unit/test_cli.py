"""The operator's command line without servers: its help, its docs and its errors."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from dev.paths import ROOT
from dev.process.child import free_port
from twofold.cli.app import app
from twofold.storage.checkpoints import Checkpoint

pytestmark = pytest.mark.guarantee("G10")

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def commands(group: typer.Typer, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every command as a tuple of words: `("relay", "run")`."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*prefix, command.name or command.callback.__name__)
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from commands(below.typer_instance, (*prefix, str(below.name)))


COMMANDS = sorted(commands(app))


def twofold(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `twofold` in a process of its own, without settings for MongoDB and Kafka."""
    command = [sys.executable, "-c", "from twofold.cli import main; main()", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MONGODB_", "KAFKA_"))}
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_has_these_commands() -> None:
    names = {" ".join(command) for command in COMMANDS}
    assert names >= {"setup", "status", "checkpoints", "reconcile", "publish", "relay run"}
    assert names >= {"history", "export", "feed"}
    assert names >= {"outbox list", "outbox retry"}
    assert names >= {f"dead-letters {name}" for name in ("list", "count", "show", "redrive", "discard")}


@pytest.mark.parametrize("command", [*COMMANDS, ()], ids=" ".join)
def test_every_command_and_every_option_has_help(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    assert "Usage" in result.output
    options = [line for line in result.output.splitlines() if re.search(r"--[a-z]", line) and "--help" not in line]
    for line in options:
        if "Usage" not in line and "completion" not in line:
            assert len(line.split()) > 4, f"no help for {line}"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_docs_operations_names_every_command(command: tuple[str, ...]) -> None:
    group, name = command[0], command[-1]
    assert re.search(rf"`[^`]*\b{group}\b[^`]*`", OPERATIONS)
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", OPERATIONS)


def test_docs_operations_explains_every_figure_of_status() -> None:
    figures = {field.name for field in dataclasses.fields(Checkpoint)} | {"lag"}
    section = OPERATIONS.partition("## `twofold status`")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert explained == figures - {"at"}
    assert "`at`" in OPERATIONS


@pytest.mark.guarantee("R34")
def test_a_missing_setting_is_named_without_a_traceback() -> None:
    run = twofold("status")
    assert run.returncode == 2
    assert run.stderr == "MONGODB_URI is missing: set this environment variable\n"


@pytest.mark.parametrize("arguments", [["status"], ["relay", "run"], ["dead-letters", "count"]], ids=" ".join)
def test_an_unavailable_server_gives_one_line_without_secrets(arguments: list[str]) -> None:
    uri = f"mongodb://someone:secret@127.0.0.1:{free_port()}"
    run = twofold(*arguments, MONGODB_URI=uri, MONGODB_TIMEOUT_S="0.5", COLUMNS="200")
    assert run.returncode == 1
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert "MongoDB" in run.stderr
    assert "secret" not in run.stderr + run.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead-letters", "redrive"],
        ["dead-letters", "show", "no-uuid"],
        ["dead-letters", "discard", "8a2f8d1e-6f39-4c5c-9d1f-0a5f6c1b2d3e"],
        ["reconcile"],
        ["reconcile", "--from", "yesterday"],
        ["publish", "/no/such/file"],
        ["checkpoints", "--limit", "0"],
        ["history", "--limit", "0"],
        ["history", "--from", "yesterday"],
        ["history", "--from", "2026-07-02", "--to", "2026-07-01"],
        ["export", "--format", "xml"],
        ["export", "/no/such/folder/file"],
        ["export", "--collection", "event_store", "--service", "/shop"],
        ["feed", "--cursor", "x"],
        ["feed", "--since", "2026-07-01", "--cursor", "x"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_gives_an_error_without_a_traceback(arguments: list[str]) -> None:
    run = twofold(*arguments, MONGODB_URI="mongodb://127.0.0.1:1")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert run.stderr.strip()
