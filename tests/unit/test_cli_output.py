"""The tables, times and options of the command line, without servers."""

import io
import re
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from dev import __main__ as dev_commands
from dev.paths import ROOT
from twofold.cli.app import app
from twofold.cli.dead_letters import Reason
from twofold.cli.options import time_text
from twofold.cli.output import progress_bars, warn
from twofold.cli.table import render, rows_of
from twofold.settings.environment import package_version
from twofold.storage.checkpoints import Checkpoint

pytestmark = pytest.mark.guarantee("G10")

UUID_TEXT = "8a2f8d1e-6f39-4c5c-9d1f-0a5f6c1b2d3e"


def printed(value: Any, width: int = 80, title: str = "") -> str:
    """Return the output of a value on a terminal of this width."""
    output = io.StringIO()
    console = Console(file=output, width=width, force_terminal=True, color_system="standard")
    console.print(render(rows_of(value, title), console, title or "nothing"), soft_wrap=True)
    return output.getvalue()


@pytest.mark.fault("C1")
@pytest.mark.parametrize(
    "text", ["real[/]", "user.[conceal]role_changed[/conceal]", "[link=http://x]a[/link]", ":skull:", "[red]", "\\["]
)
@pytest.mark.parametrize("width", [80, 30])
def test_text_of_a_producer_is_never_markup(text: str, width: int) -> None:
    """An unmatched tag ended the command, and `conceal` hid text."""
    row = {"time": "12:00", "type": text, "id": UUID_TEXT}
    for value in ([row], row, [{text: "1"}], {text: {"[/x]": 1}}):
        output = printed(value, width)
        assert text in output
        assert "\x1b[8m" not in output


@pytest.mark.fault("C1")
@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\x9b31mb", "a\rb", "a\u202eb", "a\x00b", "a\u2028b", "a\nb"])
def test_a_control_character_is_shown_and_not_sent_to_the_terminal(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    control = text[1]
    assert f"a\ufffd{text[2:]}" in printed([{"detail": text}])
    warn(text)
    error = capsys.readouterr().err
    assert control not in error.removesuffix("\n")


@pytest.mark.fault("C1")
def test_the_tables_of_the_local_stack_take_no_markup() -> None:
    output = io.StringIO()
    event = {"timestamp": datetime(2026, 7, 1, tzinfo=UTC), "event_type": "pod.[conceal]x", "payload": {"cause": "[/]"}}
    Console(file=output, width=120).print(dev_commands._timeline([event]))
    assert "pod.[conceal]x" in output.getvalue()
    assert "[/]" in output.getvalue()


@pytest.mark.fault("C3")
@pytest.mark.parametrize("width", [40, 80, 120, 250])
def test_no_value_is_cut_at_any_width(width: int) -> None:
    row = {
        "time": "2026-07-01T12:00:00.000Z",
        "event_type": "order.created",
        "event_id": UUID_TEXT,
        "aggregate": "order-" + "7" * 60,
        "user": None,
        "service": "/shop",
    }
    output = printed([row, row], width)
    for value in row.values():
        assert output.count(value or "-") >= 2
    if width == 80:
        assert all(len(line) <= 80 for line in output.splitlines())


@pytest.mark.fault("C3")
def test_a_checkpoint_and_the_lag_are_readable_at_80_columns() -> None:
    now = datetime(2026, 7, 1, 12, tzinfo=UTC).isoformat()
    checkpoint = {"at": now, "low_watermark": now, "pending": 0, "log_regressed": False, "oldest_pending": None}
    output = printed({"confirmed": 3, "checkpoint": checkpoint, "lag": {"0": 12, "1": 0}}, title="events")
    assert "{" not in output
    assert "0: 12, 1: 0" in output
    assert re.search(rf"checkpoint low_watermark\W+{re.escape(now)}", output)
    assert re.search(r"checkpoint log_regressed\W+no", output)
    assert all(len(line) <= 80 for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines())
    assert now in printed([dict.fromkeys(Checkpoint.__dataclass_fields__, now)])


@pytest.mark.fault("C3")
def test_a_progress_bar_shows_count_share_and_rate() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with progress_bars(console) as bars:
        task = bars.add_task("comparing [x]", total=1000)
        bars.update(task, completed=250)
        text = io.StringIO()
        Console(file=text, width=80).print(bars.get_renderable())
    assert "comparing [x]" in text.getvalue()
    assert "250/1000" in text.getvalue()
    assert "25%" in text.getvalue()
    assert "/s" in text.getvalue()


@pytest.mark.fault("C3")
def test_the_version_is_an_option() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"twofold {package_version()}\n")


@pytest.mark.fault("C3")
@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["dead-letters", "list", "--state", "bogus"], ["dead", "redriving", "stored", "discarded"]),
        (["dead-letters", "list", "--reason", "bogus"], ["malformed", "undelivered", "identity-conflict"]),
        (["dead-letters", "redrive", "--reason", "bogus", "--by", "Ada"], ["malformed", "too-large"]),
        (["export", "--format", "bogus"], ["csv", "json", "ndjson"]),
        (["export", "--collection", "bogus"], ["events", "event_store"]),
        (["history", "--order", "bogus"], ["newest", "oldest"]),
    ],
    ids=" ".join,
)
def test_an_unknown_value_is_refused_with_the_known_values(arguments: list[str], known: list[str]) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 2
    for value in known:
        assert f"'{value}'" in result.output


def test_every_reason_of_the_documents_is_known() -> None:
    operations = (ROOT / "docs/operations.md").read_text().partition("| reason | cause")[2].partition("\n\n")[0]
    named = {name for row in operations.splitlines() for name in re.findall(r"`([a-z-]+)`", row.partition(" | ")[0])}
    assert named == set(get_args(Reason))


@pytest.mark.fault("A4")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-28T23:30:00+01:00", "2026-11-28T22:30:00+00:00"),
        ("2026-11-28T23:30:00-05:30", "2026-11-29T05:00:00+00:00"),
        ("2026-11-28T23:30:00Z", "2026-11-28T23:30:00+00:00"),
        ("2026-11-28 23:30:00+01:00", "2026-11-28T22:30:00+00:00"),
        ("2026-11-28T23:30:00", "2026-11-28T23:30:00+00:00"),
        ("2026-11-28T23:30:00.123456789Z", "2026-11-28T23:30:00.123456+00:00"),
        ("2026-11-28", "2026-11-28T00:00:00+00:00"),
    ],
)
def test_the_offset_of_a_time_counts(text: str, expected: str) -> None:
    """The offset was dropped, so `reconcile --from` looked at the wrong range."""
    assert time_text(text).isoformat() == expected


@pytest.mark.fault("A4")
@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-31", "2026-11-28T25:00:00", "2026-11-28T23:30:00+1", "1"])
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time"):
        time_text(text)


@pytest.mark.fault("A4")
@pytest.mark.parametrize(
    "command", [["reconcile", "--from"], ["history", "--from"], ["export", "--to"], ["feed", "--since"]], ids=" ".join
)
def test_each_command_with_a_time_refuses_a_wrong_offset(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "2026-11-28T23:30:00+1"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "is no time" in result.output
