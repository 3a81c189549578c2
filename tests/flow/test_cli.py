"""The operator's command line on the whole stack, with the operator's own rights."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from dev.process.child import free_port, wait_until
from tests.helpers import View, altered, an_event, plain_record, some_events, structured
from twofold.cli import app
from twofold.errors import Unavailable
from twofold.event.model import Event

pytestmark = pytest.mark.guarantee("G10")

Twofold = Callable[..., Result]


@pytest.fixture
def twofold(flow: View) -> Twofold:
    """Run a command in this process, with the settings of the user `operator`."""
    env = flow.stack.function_environment("operator") | {"COLUMNS": "200", "NO_COLOR": "1"}

    def run(*arguments: str, exit_code: int = 0, **more: Any) -> Result:
        result = CliRunner().invoke(app, arguments, env=env, **more)
        assert result.exit_code == exit_code, (result.output, result.exception)
        return result

    return run


def said(result: Result) -> Any:
    """What it printed as JSON."""
    return json.loads(result.stdout)


def poison(flow: View) -> dict[str, Any]:
    """A new letter."""
    body = b"\x00 poison " + uuid4().bytes
    assert flow.store(plain_record(body, 72, 1)).status_code == 200
    letter: dict[str, Any] = flow.database.dead_letters.find_one({"body": body})
    return letter


def in_lines(*events: Event) -> str:
    return "".join(json.dumps(structured(event)) + "\n" for event in events)


class TestStatus:
    def test_status_says_how_far_the_log_is_complete(self, twofold: Twofold) -> None:
        status = said(twofold("status", "--json"))
        assert status.keys() == {
            *("at", "low_watermark", "stored", "pending", "dead", "conflicting", "unreadable", "oldest_pending"),
            *("log_regressed", "lag"),
        }
        assert status["lag"].keys() == {"0", "1", "2", "3"}
        assert status["at"].endswith("Z")
        assert status["low_watermark"] <= status["at"]

    @pytest.mark.slow
    @pytest.mark.guarantee("G7")
    def test_without_kafka_it_says_all_but_the_lag(self, flow: View) -> None:
        """An outage is when one looks."""
        env = flow.stack.function_environment("operator") | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
        result = CliRunner().invoke(app, ["status", "--json"], env=env)
        assert result.exit_code == 0
        status = said(result)
        assert status["lag"] is None
        assert status["low_watermark"] <= status["at"]
        assert "Kafka" in result.stderr

    def test_people_get_a_table(self, twofold: Twofold) -> None:
        output = twofold("status").stdout
        assert "low_watermark" in output
        assert "{" in output, "the lag, by partition"

    def test_a_run_of_the_relay_ends_with_a_checkpoint_that_is_listed(self, twofold: Twofold, flow: View) -> None:
        """The same that the function `relay` then answers to a GET."""
        run = said(twofold("relay", "run", "--json"))
        listed = said(twofold("checkpoints", "--limit", "1", "--json"))
        assert listed == [run["checkpoint"]]
        assert flow.http.get(flow.stack.relay_url).json() == run["checkpoint"]

    def test_setup_says_what_there_is(self, twofold: Twofold, flow: View) -> None:
        """With the rights of who may do that."""
        output = twofold("setup", exit_code=1).output
        assert "Traceback" not in output
        result = CliRunner().invoke(app, ["setup"], env=flow.stack.environment)
        assert result.exit_code == 0
        assert "collection events" in result.stdout
        assert f"topic {flow.stack.topic}" in result.stdout

    @pytest.mark.slow
    @pytest.mark.guarantee("R9")
    def test_reconcile_says_what_it_did(self, twofold: Twofold, flow: View) -> None:
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        assert flow.relayed([event])
        flow.database.event_store.delete_one({"_id": event.event_id})  # root's right, and a restored backup's effect
        done = said(twofold("reconcile", "--from", "2020-01-01", "--json"))
        assert done["marked"] == 1
        assert done["looked_at"] >= 1
        assert flow.relayed([event])
        assert flow.held("event_store", [event])


class TestDeadLetters:
    def test_they_are_counted_listed_and_shown(self, twofold: Twofold, flow: View) -> None:
        """Whole, with the bytes in base64."""
        letter = poison(flow)
        counted = said(twofold("dead-letters", "count", "--json"))
        assert {"state": "dead", "reason": "malformed"} in [
            {name: line[name] for name in ("state", "reason")} for line in counted
        ]
        listed = said(twofold("dead-letters", "list", "--reason", "malformed", "--limit", "100000", "--json"))
        assert str(letter["_id"]) in [line["_id"] for line in listed]
        shown = said(twofold("dead-letters", "show", str(letter["_id"])))
        assert shown["_id"] == str(letter["_id"])
        assert shown["reason"] == "malformed"
        assert shown["body"]

    def test_one_that_is_not_there_is_told(self, twofold: Twofold) -> None:
        assert "no letter" in twofold("dead-letters", "show", str(uuid4()), exit_code=2).output

    @pytest.mark.guarantee("R12")
    def test_redrive_sends_letters_again(self, twofold: Twofold, flow: View) -> None:
        """Named, or by their reason."""
        letter = poison(flow)
        done = said(twofold("dead-letters", "redrive", str(letter["_id"]), "--by", "Ada", "--json"))
        assert done == {"sent": 1, "not_dead": 0, "not_sent": 0}

        def failed_again() -> bool:
            history = flow.database.dead_letters.find_one({"_id": letter["_id"]})["history"]
            return [line["what"] for line in history] == ["redriven", "failed again"]

        assert wait_until(failed_again, within=40)
        assert said(twofold("dead-letters", "redrive", "--reason", "no-such", "--by", "Ada", "--json"))["sent"] == 0

    def test_discard_takes_a_reason_and_a_name(self, twofold: Twofold, flow: View) -> None:
        letter = poison(flow)
        twofold("dead-letters", "discard", str(letter["_id"]), "--why", "a test", "--by", "Ada")
        kept = flow.database.dead_letters.find_one({"_id": letter["_id"]})
        assert (kept["state"], kept["history"][0]["by"], kept["history"][0]["why"]) == ("discarded", "Ada", "a test")
        again = twofold("dead-letters", "discard", str(letter["_id"]), "--why", "again", "--by", "Ada", exit_code=2)
        assert "not dead" in again.output


@pytest.mark.guarantee("R4")
class TestPublish:
    def test_lines_of_standard_input_are_published(self, twofold: Twofold, flow: View) -> None:
        """By the same path as the function's, and safe to repeat."""
        events = some_events(25)
        first = said(twofold("publish", "--json", input=in_lines(*events)))
        again = said(twofold("publish", "-", "--json", input=in_lines(*events)))
        assert first == {"accepted": 25, "duplicate": 0, "refused": 0}
        assert again == {"accepted": 0, "duplicate": 25, "refused": 0}
        assert flow.arrive(events)

    @pytest.mark.guarantee("R3")
    def test_lines_that_are_refused_are_told_by_number_and_stop_nothing(self, twofold: Twofold, flow: View) -> None:
        there, good, last = some_events(3)
        flow.publish(there)
        lines = f"{in_lines(good)}no json\n{in_lines(altered(there))}{in_lines(last)}"
        result = twofold("publish", "--json", input=lines, exit_code=1)
        assert said(result) == {"accepted": 2, "duplicate": 0, "refused": 2}
        told = [line for line in result.stderr.splitlines() if line.startswith("line ")]
        assert [line.split(":")[0] for line in told] == ["line 2", "line 3"]
        assert flow.held("events", [good, last]) == {good.event_id, last.event_id}

    def test_blank_lines_are_no_events(self, twofold: Twofold, flow: View) -> None:
        """But they count as lines, by whose numbers people look."""
        one, other = some_events(2)
        lines = f"\n{in_lines(one)}  \n{in_lines(other)}no json\n\n"
        result = twofold("publish", "--json", input=lines, exit_code=1)
        assert said(result) == {"accepted": 2, "duplicate": 0, "refused": 1}
        assert "line 5: " in result.stderr

    @pytest.mark.guarantee("G1")
    def test_what_was_taken_before_mongodb_went_away_is_told(self, twofold: Twofold, flow: View) -> None:
        """And which lines may not be: they go in groups of MAX_BATCH_EVENTS, which is 1,000."""
        events = some_events(1005)
        timed_out = {"code": 64, "errmsg": "waiting for replication timed out"}
        data = {"failCommands": ["insert"], "appName": "twofold-cli", "writeConcernError": timed_out}
        admin = flow.database.client.admin
        admin.command("configureFailPoint", "failCommand", mode={"skip": 1}, data=data)
        try:
            result = twofold("publish", "--json", input=in_lines(*events), exit_code=1)
        finally:
            admin.command("configureFailPoint", "failCommand", mode="off")
        assert said(result) == {"accepted": 1000, "duplicate": 0, "refused": 0}
        assert isinstance(result.exception, Unavailable)
        assert str(result.exception).startswith("lines 1001 to 1005 may not be stored")
        again = said(twofold("publish", "--json", input=in_lines(*events)))
        assert again == {"accepted": 0, "duplicate": 1005, "refused": 0}

    def test_a_file_is_published(self, twofold: Twofold, flow: View, tmp_path: Any) -> None:
        event = an_event()
        file = tmp_path / "events.ndjson"
        file.write_text(in_lines(event))
        assert said(twofold("publish", str(file), "--json"))["accepted"] == 1
        assert flow.held("events", [event])


@pytest.mark.guarantee("R25", "R35")
class TestReading:
    def logged(self, flow: View, **changes: Any) -> list[Event]:
        """Three events of one aggregate, in the log."""
        name = f"=cli-{uuid4()}"
        start = datetime.now(UTC) - timedelta(minutes=5)
        events = [
            an_event(aggregate_id=name, timestamp=start + timedelta(seconds=second), **changes) for second in range(3)
        ]
        assert flow.publish_all(events).status_code == 202
        assert flow.arrive(events)
        return events

    def test_history_tells_what_happened_in_its_order(self, twofold: Twofold, flow: View) -> None:
        events = self.logged(flow)
        aggregate = str(events[0].aggregate_id)
        page = said(twofold("history", "--aggregate", aggregate, "--json"))
        assert [event["event_id"] for event in page["events"]] == [str(event.event_id) for event in events]
        output = twofold("history", "--aggregate", aggregate, "--order", "newest", "--limit", "2")
        assert str(events[2].event_id) in output.stdout
        assert str(events[0].event_id) not in output.stdout
        assert "more than these 2" in output.stderr
        since = events[1].timestamp.replace(tzinfo=None).isoformat(timespec="milliseconds")
        after = said(twofold("history", "--aggregate", aggregate, "--from", f"{since[:19]}", "--json"))
        assert str(events[2].event_id) in [event["event_id"] for event in after["events"]]

    @pytest.mark.parametrize("collection", ["events", "event_store"])
    def test_export_writes_a_file_in_each_format(
        self, twofold: Twofold, flow: View, tmp_path: Path, collection: str
    ) -> None:
        """Whole, and under its name only then."""
        events = self.logged(flow)
        ids = [str(event.event_id) for event in events]
        of = ("--aggregate", str(events[0].aggregate_id), "--collection", collection)
        twofold("export", str(tmp_path / "a.json"), "--format", "json", *of)
        assert [event["event_id"] for event in json.loads((tmp_path / "a.json").read_text())] == ids
        twofold("export", str(tmp_path / "a.csv"), "--format", "csv", *of)
        rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_bytes().decode(), newline="")))
        assert [row["event_id"] for row in rows] == ids
        assert {row["aggregate_id"] for row in rows} == {f"'{events[0].aggregate_id}"}
        lines = twofold("export", *of).stdout.splitlines()
        assert [json.loads(line)["event_id"] for line in lines] == ids
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json"]

    def test_an_export_that_fails_leaves_no_file(self, twofold: Twofold, flow: View, tmp_path: Path) -> None:
        fail = flow.database.client.admin.command
        data = {"failCommands": ["find"], "appName": "twofold-cli", "errorCode": 8}
        fail("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            twofold("export", str(tmp_path / "a.json"), exit_code=1)
        finally:
            fail("configureFailPoint", "failCommand", mode="off")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_the_feed_goes_on_where_it_ended(self, twofold: Twofold, flow: View, tmp_path: Path) -> None:
        """By its cursor, or by the place that a file keeps."""
        place = tmp_path / "place"
        since = (datetime.now(UTC) - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S")
        got: list[str] = []

        def all_of(events: list[Event], *start: str) -> bool:
            output = twofold("feed", "--json", "--place", str(place), *(() if place.exists() else start))
            assert output.stderr.strip().endswith(f"cursor {place.read_text().strip()}")
            got.extend(json.loads(line)["event_id"] for line in output.stdout.splitlines())
            return {str(event.event_id) for event in events} <= set(got)

        first = self.logged(flow)
        assert wait_until(lambda: all_of(first, "--since", since), within=40, every=0.5)
        second = self.logged(flow)
        assert wait_until(lambda: all_of(second), within=40, every=0.5)
        assert len(got) == len(set(got))
        assert "none that was given out" in str(twofold("feed", "--cursor", "x", exit_code=1).exception)

    @pytest.mark.slow
    def test_following_waits_for_what_is_to_come_until_it_is_interrupted(self, flow: View) -> None:
        """Each event once, a line each; then it tells its place, and ends well."""
        env = os.environ | flow.stack.function_environment("operator")
        since = (datetime.now(UTC) - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S")
        command = [sys.executable, "-c", "from twofold.cli import main; main()", "feed", "--follow", "--json"]
        with subprocess.Popen(
            [*command, "--since", since], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as following:
            wanted = {str(event.event_id) for event in self.logged(flow)}
            assert following.stdout is not None
            got = []
            for line in following.stdout:
                got.append(json.loads(line)["event_id"])
                if wanted <= set(got):
                    break
            following.send_signal(signal.SIGINT)
            _, told = following.communicate(timeout=30)
        assert len(got) == len(set(got))
        assert following.returncode == 0
        assert told.strip().splitlines()[-1].startswith("cursor ")
