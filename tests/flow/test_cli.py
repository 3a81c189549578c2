"""The operator's command line on the whole stack, with the permissions of the database user `operator`."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner, Result

from dev.process.child import free_port, wait_until
from tests.helpers import View, altered, an_event, delivered, plain_record, some_events, structured
from twofold.cli.app import app
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


def printed(result: Result) -> Any:
    """Return the JSON that a command printed."""
    return json.loads(result.stdout)


def new_dead_letter(flow: View) -> dict[str, Any]:
    """Send `store` a record that is no event, and return its dead letter."""
    body = b"\x00 poison " + uuid4().bytes
    assert flow.store(plain_record(body, 72, 1)).status_code == 200
    dead_letter: dict[str, Any] = flow.database.dead_letters.find_one({"body": body})
    return dead_letter


def ndjson(*events: Event) -> str:
    return "".join(json.dumps(structured(event)) + "\n" for event in events)


class TestStatus:
    def test_status_shows_the_low_watermark_and_the_counts(self, twofold: Twofold) -> None:
        status = printed(twofold("status", "--json"))
        assert status.keys() == {
            *("at", "low_watermark", "stored", "pending", "dead", "conflicting", "unreadable", "oldest_pending"),
            *("log_regressed", "stuck", "lag"),
        }
        assert status["lag"].keys() == {"0", "1", "2", "3"}
        assert status["at"].endswith("Z")
        assert status["low_watermark"] <= status["at"]

    @pytest.mark.slow
    @pytest.mark.guarantee("G7")
    def test_without_kafka_status_shows_everything_except_the_lag(self, flow: View) -> None:
        env = flow.stack.function_environment("operator") | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
        result = CliRunner().invoke(app, ["status", "--json"], env=env)
        assert result.exit_code == 0
        status = printed(result)
        assert status["lag"] is None
        assert status["low_watermark"] <= status["at"]
        assert "Kafka" in result.stderr

    def test_without_json_status_prints_a_table(self, twofold: Twofold) -> None:
        output = twofold("status").stdout
        assert "low_watermark" in output
        assert re.search(r"lag\W+0: \d+, 1: \d+, 2: \d+, 3: \d+", output)

    def test_the_checkpoint_of_a_relay_run_is_listed(self, twofold: Twofold, flow: View) -> None:
        """The function `relay` answers a GET with the same checkpoint."""
        run = printed(twofold("relay", "run", "--json"))
        listed = printed(twofold("checkpoints", "--limit", "1", "--json"))
        assert listed == [run["checkpoint"]]
        assert flow.http.get(flow.stack.relay_url).json() == run["checkpoint"]

    def test_setup_prints_its_objects_to_a_user_with_permission(self, twofold: Twofold, flow: View) -> None:
        """The operator has no permission for set-up: the command then prints one error."""
        output = twofold("setup", exit_code=1).output
        assert "Traceback" not in output
        result = CliRunner().invoke(app, ["setup"], env=flow.stack.environment)
        assert result.exit_code == 0
        assert "collection events" in result.stdout
        assert f"topic {flow.stack.topic}" in result.stdout

    @pytest.mark.fault("A2")
    def test_relay_run_keeps_the_retention_of_the_function(self, twofold: Twofold, flow: View) -> None:
        """The operator's shell has another RETENTION_DAYS than the function `relay`: 3 days."""
        flow.relay()
        event = an_event()
        flow.accept(event)
        assert flow.store(delivered(event)).status_code == 200
        env = flow.stack.function_environment("operator") | {"RETENTION_DAYS": "30", "RELAY_FIRST_LOOK_S": "0.1"}

        def confirmed() -> bool:
            run = CliRunner().invoke(app, ["relay", "run", "--json"], env=env)
            assert run.exit_code == 0, run.output
            return "outbox" not in (flow.document("events", event) or {"outbox": None})

        assert wait_until(confirmed, within=20, every=0.5)
        document = flow.document("events", event)
        assert document is not None
        assert document["expires_at"] - document["confirmed_at"] == timedelta(days=3)

    @pytest.mark.slow
    @pytest.mark.guarantee("R9")
    @pytest.mark.fault("A4")
    def test_reconcile_takes_the_offset_of_its_time(self, twofold: Twofold, flow: View) -> None:
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        assert flow.relayed([event])
        flow.database.event_store.delete_one({"_id": event.event_id})
        half_an_hour = timedelta(minutes=30)
        late = (datetime.now(timezone(-timedelta(hours=1))) + half_an_hour).isoformat()
        refused = CliRunner().invoke(
            app, ["reconcile", "--from", late], env=flow.stack.function_environment("operator")
        )
        assert "give this time or an earlier one" in str(refused.exception)
        early = (datetime.now(timezone(timedelta(hours=1))) - half_an_hour).isoformat()
        assert printed(twofold("reconcile", "--from", early, "--json"))["reopened"] == 1
        assert flow.relayed([event])

    @pytest.mark.slow
    @pytest.mark.guarantee("R9")
    def test_reconcile_prints_its_counts(self, twofold: Twofold, flow: View) -> None:
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        assert flow.relayed([event])
        flow.database.event_store.delete_one(
            {"_id": event.event_id}
        )  # as the root user: this has the effect of a restored backup
        done = printed(twofold("reconcile", "--from", "2020-01-01", "--json"))
        assert done["reopened"] == 1
        assert done["looked_at"] >= 1
        assert flow.relayed([event])
        assert flow.held("event_store", [event])


@pytest.mark.fault("A10", "A11")
class TestOutbox:
    @pytest.mark.parametrize("state", ["stuck", "unreadable"])
    def test_events_in_a_final_state_are_listed_and_retried(self, twofold: Twofold, flow: View, state: str) -> None:
        event = an_event()
        flow.accept(event)
        flow.database.events.update_one(
            {"_id": event.event_id},
            {"$set": {"outbox.state": state, "outbox.tries": 30}, "$unset": {"outbox.next_try": ""}},
        )
        assert printed(twofold("status", "--json"))[state] >= 1
        listed = printed(twofold("outbox", "list", "--state", state, "--limit", "1000", "--json"))
        (line,) = [line for line in listed if line["event_id"] == str(event.event_id)]
        assert (line["event_type"], line["source"], line["tries"]) == (event.event_type, "/shop", 30)
        assert line["accepted_at"].endswith("Z")
        assert printed(twofold("outbox", "retry", str(event.event_id), "--json")) == {"retried": 1}
        assert printed(twofold("outbox", "retry", str(event.event_id), "--json")) == {"retried": 0}
        assert flow.relayed([event])
        assert flow.held("event_store", [event])

    def test_a_wrong_call_is_refused(self, twofold: Twofold) -> None:
        for arguments in ((), (str(uuid4()), "--state", "stuck"), ("--state", "bogus")):
            assert "stuck" in twofold("outbox", "retry", *arguments, exit_code=2).output


class TestDeadLetters:
    def test_dead_letters_are_counted_listed_and_shown(self, twofold: Twofold, flow: View) -> None:
        dead_letter = new_dead_letter(flow)
        counted = printed(twofold("dead-letters", "count", "--json"))
        assert {"state": "dead", "reason": "malformed"} in [
            {name: line[name] for name in ("state", "reason")} for line in counted
        ]
        listed = printed(twofold("dead-letters", "list", "--reason", "malformed", "--limit", "100000", "--json"))
        assert str(dead_letter["_id"]) in [line["_id"] for line in listed]
        shown = printed(twofold("dead-letters", "show", str(dead_letter["_id"])))
        assert shown["_id"] == str(dead_letter["_id"])
        assert shown["reason"] == "malformed"
        assert shown["body"]

    def test_an_unknown_dead_letter_gives_an_error(self, twofold: Twofold) -> None:
        assert "no dead letter" in twofold("dead-letters", "show", str(uuid4()), exit_code=2).output

    @pytest.mark.guarantee("R12")
    def test_redrive_sends_dead_letters_again_by_id_or_by_reason(self, twofold: Twofold, flow: View) -> None:
        dead_letter = new_dead_letter(flow)
        done = printed(twofold("dead-letters", "redrive", str(dead_letter["_id"]), "--by", "Ada", "--json"))
        assert done == {"sent": 1, "not_dead": 0, "not_sent": 0}

        def failed_again() -> bool:
            history = flow.database.dead_letters.find_one({"_id": dead_letter["_id"]})["history"]
            return [line["what"] for line in history] == ["redriven", "failed again"]

        assert wait_until(failed_again, within=40)
        unused = twofold(
            "dead-letters", "redrive", "--reason", "digest-mismatch", "--by", "Ada", "--json", "--limit", "1"
        )
        assert printed(unused)["not_sent"] == 0

    @pytest.mark.fault("C11")
    def test_redrive_waits_as_relay_back_off_s_says(self, twofold: Twofold, flow: View) -> None:
        event = an_event()
        flow.accept(event)
        assert flow.store(delivered(altered(event))).status_code == 200
        assert flow.store(delivered(event, 74, 1)).status_code == 200
        flow.database.events.update_one({"_id": event.event_id}, {"$set": {"outbox.state": "dead"}})
        (dead_letter,) = flow.dead_letters(event)
        environment = flow.stack.function_environment("operator") | {"RELAY_BACK_OFF_S": "600"}
        command = ["dead-letters", "redrive", str(dead_letter["_id"]), "--by", "Ada", "--json"]
        assert CliRunner().invoke(app, command, env=environment).exit_code == 0
        document = flow.document("events", event)
        assert document is not None
        assert document["outbox"]["next_try"] - datetime.now(UTC) > timedelta(seconds=500)

    @pytest.mark.fault("C11")
    @pytest.mark.guarantee("R12")
    def test_a_dead_letter_with_a_header_beyond_ascii_stays_one_dead_letter(self, twofold: Twofold, flow: View) -> None:
        """Java reads the header as UTF-8 and sends it as Latin-1. The record once had Latin-1, so Java lost it."""
        source = f"/poison-{uuid4()}"
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"p"),
            ("ce_type", b"order.created"),
            ("ce_twofolddigest", b"00" * 32),
        ]
        headers += [
            ("ce_source", source.encode()),
            ("ce_subject", "茶😀é".encode()),
            ("ce_time", b"2026-01-02T03:04:05Z"),
        ]
        with KafkaProducer(bootstrap_servers=flow.stack.kafka) as producer:
            producer.send(flow.stack.topic, b"{}", headers=[*headers, ("content-type", b"application/json")])
            producer.flush(20)

        def kept() -> list[dict[str, Any]]:
            return list(flow.database.dead_letters.find({"headers.value": source.encode()}))

        assert wait_until(lambda: len(kept()) == 1, within=40)
        twofold("dead-letters", "redrive", str(kept()[0]["_id"]), "--by", "Ada")
        assert wait_until(lambda: sum(each["times"] for each in kept()) == 2, within=40)
        (dead_letter,) = kept()
        assert [line["what"] for line in dead_letter["history"]] == ["redriven", "failed again"]

    def test_discard_keeps_the_reason_and_the_name(self, twofold: Twofold, flow: View) -> None:
        dead_letter = new_dead_letter(flow)
        twofold("dead-letters", "discard", str(dead_letter["_id"]), "--why", "a test", "--by", "Ada")
        kept = flow.database.dead_letters.find_one({"_id": dead_letter["_id"]})
        assert (kept["state"], kept["history"][0]["by"], kept["history"][0]["why"]) == ("discarded", "Ada", "a test")
        again = twofold(
            "dead-letters", "discard", str(dead_letter["_id"]), "--why", "again", "--by", "Ada", exit_code=2
        )
        assert "state is not dead" in again.output


@pytest.mark.guarantee("R4")
class TestPublish:
    def test_lines_of_standard_input_are_published_and_repeated_lines_are_duplicates(
        self, twofold: Twofold, flow: View
    ) -> None:
        events = some_events(25)
        first = printed(twofold("publish", "--json", input=ndjson(*events)))
        again = printed(twofold("publish", "-", "--json", input=ndjson(*events)))
        assert first == {"accepted": 25, "duplicate": 0, "refused": 0}
        assert again == {"accepted": 0, "duplicate": 25, "refused": 0}
        assert flow.arrive(events)

    @pytest.mark.guarantee("R3")
    def test_refused_lines_are_named_by_number_and_the_rest_is_published(self, twofold: Twofold, flow: View) -> None:
        stored, good, last = some_events(3)
        flow.publish(stored)
        lines = f"{ndjson(good)}no json\n{ndjson(altered(stored))}{ndjson(last)}"
        result = twofold("publish", "--json", input=lines, exit_code=1)
        assert printed(result) == {"accepted": 2, "duplicate": 0, "refused": 2}
        refused = [line for line in result.stderr.splitlines() if line.startswith("line ")]
        assert [line.split(":")[0] for line in refused] == ["line 2", "line 3"]
        assert flow.held("events", [good, last]) == {good.event_id, last.event_id}

    def test_blank_lines_are_skipped_and_counted_in_line_numbers(self, twofold: Twofold, flow: View) -> None:
        first, second = some_events(2)
        lines = f"\n{ndjson(first)}  \n{ndjson(second)}no json\n\n"
        result = twofold("publish", "--json", input=lines, exit_code=1)
        assert printed(result) == {"accepted": 2, "duplicate": 0, "refused": 1}
        assert "line 5: " in result.stderr

    @pytest.mark.guarantee("G1")
    def test_an_outage_of_mongodb_names_the_lines_that_may_not_be_stored(self, twofold: Twofold, flow: View) -> None:
        """Lines are written in groups of MAX_BATCH_EVENTS, here 1,000. The first group is stored."""
        events = some_events(1005)
        timed_out = {"code": 64, "errmsg": "waiting for replication timed out"}
        data = {"failCommands": ["insert"], "appName": "twofold-cli", "writeConcernError": timed_out}
        admin = flow.database.client.admin
        admin.command("configureFailPoint", "failCommand", mode={"skip": 1}, data=data)
        try:
            result = twofold("publish", "--json", input=ndjson(*events), exit_code=1)
        finally:
            admin.command("configureFailPoint", "failCommand", mode="off")
        assert printed(result) == {"accepted": 1000, "duplicate": 0, "refused": 0}
        assert isinstance(result.exception, Unavailable)
        assert str(result.exception).startswith("lines 1001 to 1005: it is unknown whether the events are stored")
        again = printed(twofold("publish", "--json", input=ndjson(*events)))
        assert again == {"accepted": 0, "duplicate": 1005, "refused": 0}

    def test_a_file_is_published(self, twofold: Twofold, flow: View, tmp_path: Any) -> None:
        event = an_event()
        file = tmp_path / "events.ndjson"
        file.write_text(ndjson(event))
        assert printed(twofold("publish", str(file), "--json"))["accepted"] == 1
        assert flow.held("events", [event])


@pytest.mark.guarantee("R25", "R35")
class TestReading:
    def logged(self, flow: View, **changes: Any) -> list[Event]:
        """Publish three events of one aggregate, and return them when the log has them."""
        name = f"=cli-{uuid4()}"
        start = datetime.now(UTC) - timedelta(minutes=5)
        events = [
            an_event(aggregate_id=name, timestamp=start + timedelta(seconds=second), **changes) for second in range(3)
        ]
        assert flow.publish_all(events).status_code == 202
        assert flow.arrive(events)
        return events

    def test_history_shows_events_in_the_order_of_time(self, twofold: Twofold, flow: View) -> None:
        events = self.logged(flow)
        aggregate = str(events[0].aggregate_id)
        page = printed(twofold("history", "--aggregate", aggregate, "--json"))
        assert [event["event_id"] for event in page["events"]] == [str(event.event_id) for event in events]
        output = twofold("history", "--aggregate", aggregate, "--order", "newest", "--limit", "2")
        assert str(events[2].event_id) in output.stdout
        assert str(events[0].event_id) not in output.stdout
        assert "more than these 2" in output.stderr
        since = events[1].timestamp.replace(tzinfo=None).isoformat(timespec="milliseconds")
        after = printed(twofold("history", "--aggregate", aggregate, "--from", f"{since[:19]}", "--json"))
        assert str(events[2].event_id) in [event["event_id"] for event in after["events"]]

    @pytest.mark.fault("C3")
    def test_history_continues_at_the_cursor_that_it_printed(self, twofold: Twofold, flow: View) -> None:
        events = self.logged(flow)
        selected = ("history", "--aggregate", str(events[0].aggregate_id), "--limit", "2")
        first = twofold(*selected)
        cursor = first.stderr.split("--cursor ")[1].strip()
        second = printed(twofold(*selected, "--cursor", cursor, "--json"))
        assert [event["event_id"] for event in second["events"]] == [str(events[2].event_id)]

    @pytest.mark.fault("A4")
    def test_the_offset_of_a_time_selects_the_events(self, twofold: Twofold, flow: View, tmp_path: Path) -> None:
        """Dropped, the offset moved the range by an hour."""
        events = self.logged(flow)
        zone = timezone(timedelta(hours=1))
        since, until = ((events[0].timestamp + timedelta(seconds=n)).astimezone(zone).isoformat() for n in (0, 2))
        selected = ("--aggregate", str(events[0].aggregate_id), "--from", since, "--to", until)
        expected = [str(event.event_id) for event in events[:2]]
        found = printed(twofold("history", *selected, "--json"))
        assert [event["event_id"] for event in found["events"]] == expected
        lines = twofold("export", *selected).stdout.splitlines()
        assert [json.loads(line)["event_id"] for line in lines] == expected
        fed = twofold("feed", "--json", "--since", (datetime.now(zone) - timedelta(minutes=2)).isoformat())
        later = twofold("feed", "--json", "--since", (datetime.now(zone) + timedelta(minutes=2)).isoformat())
        assert fed.exit_code == 0
        assert later.stdout == ""

    @pytest.mark.fault("C1")
    def test_a_producers_text_is_shown_as_it_is(self, twofold: Twofold, flow: View) -> None:
        """`[/]` ended the command with a traceback, and `[conceal]` hid a part of a type."""
        user = f"eve-{uuid4()}"
        hidden = an_event(
            aggregate_id="real[/]",
            event_type="user.[conceal]role_changed[/conceal]",
            metadata={"service_name": "/shop", "user_id": user},
        )
        assert flow.publish(hidden).status_code == 202
        assert flow.arrive([hidden])
        output = twofold("history", "--user", user).stdout
        assert "user.[conceal]role_changed[/conceal]" in output
        assert "real[/]" in output
        body = b'{"[/x]": 1, "[/x]": ' + uuid4().hex.encode() + b"}"
        assert flow.store(plain_record(body, 73, 1)).status_code == 200
        assert twofold("dead-letters", "list", "--limit", "100000").exit_code == 0

    @pytest.mark.parametrize("collection", ["events", "event_store"])
    def test_export_writes_a_file_in_each_format(
        self, twofold: Twofold, flow: View, tmp_path: Path, collection: str
    ) -> None:
        events = self.logged(flow)
        ids = [str(event.event_id) for event in events]
        selected = ("--aggregate", str(events[0].aggregate_id), "--collection", collection)
        twofold("export", str(tmp_path / "a.json"), "--format", "json", *selected)
        assert [event["event_id"] for event in json.loads((tmp_path / "a.json").read_text())] == ids
        twofold("export", str(tmp_path / "a.csv"), "--format", "csv", *selected)
        rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_bytes().decode(), newline="")))
        assert [row["event_id"] for row in rows] == ids
        assert {row["aggregate_id"] for row in rows} == {f"'{events[0].aggregate_id}"}
        lines = twofold("export", *selected).stdout.splitlines()
        assert [json.loads(line)["event_id"] for line in lines] == ids
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json"]

    def test_a_failed_export_leaves_no_file(self, twofold: Twofold, flow: View, tmp_path: Path) -> None:
        fail = flow.database.client.admin.command
        data = {"failCommands": ["find"], "appName": "twofold-cli", "errorCode": 8}
        fail("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            twofold("export", str(tmp_path / "a.json"), exit_code=1)
        finally:
            fail("configureFailPoint", "failCommand", mode="off")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_the_feed_continues_at_the_cursor_in_a_file(self, twofold: Twofold, flow: View, tmp_path: Path) -> None:
        cursor_file = tmp_path / "cursor"
        since = (datetime.now(UTC) - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S")
        got: list[str] = []

        def printed_all(events: list[Event], *start: str) -> bool:
            begin = () if cursor_file.exists() else start
            output = twofold("feed", "--json", "--cursor-file", str(cursor_file), *begin)
            assert output.stderr.strip().endswith(f"cursor {cursor_file.read_text().strip()}")
            got.extend(json.loads(line)["event_id"] for line in output.stdout.splitlines())
            return {str(event.event_id) for event in events} <= set(got)

        first = self.logged(flow)
        assert wait_until(lambda: printed_all(first, "--since", since), within=40, every=0.5)
        second = self.logged(flow)
        assert wait_until(lambda: printed_all(second), within=40, every=0.5)
        assert len(got) == len(set(got))
        assert "not a cursor of this query" in str(twofold("feed", "--cursor", "x", exit_code=1).exception)

    @pytest.mark.slow
    def test_follow_waits_for_new_events_until_it_is_interrupted(self, flow: View) -> None:
        """The last line names the cursor, and the exit status is 0."""
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
            _, errors = following.communicate(timeout=30)
        assert len(got) == len(set(got))
        assert following.returncode == 0
        assert errors.strip().splitlines()[-1].startswith("cursor ")
