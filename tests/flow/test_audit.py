"""`audit` over HTTP: the log for auditors only, and without any change."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from typer.testing import CliRunner

from dev.process.child import wait_until
from dev.stack import Stack
from functions.audit.operations import OPERATIONS
from tests.helpers import View, an_event, bearer, some_events
from twofold.cli.app import app
from twofold.event.model import Event
from twofold.mongo.client import Document

pytestmark = pytest.mark.guarantee("G9", "G3")

AUDITOR = bearer("olga", "audit:read")
LONG_AGO = datetime(2020, 3, 3, tzinfo=UTC)
NOWHERE = "7c0ffee7-0000-4000-8000-000000000000"
"""An id without an event. It is constant, because xdist's processes must collect the same tests."""
PATHS = [operation.path.replace("{event_id}", NOWHERE) for operation in OPERATIONS if operation.name != "findEvent"]
PATHS.append("/event?source=%2Fshop&id=7")


class Auditor:
    """A caller of `audit`."""

    def __init__(self, flow: View) -> None:
        self._flow = flow
        self.url = flow.stack.functions["audit"].url

    def get(self, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
        return self._flow.http.get(
            self.url + path, params=parameters or None, headers=AUDITOR if headers is None else headers
        )

    def json(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(self, path: str = "/events", **parameters: Any) -> list[str]:
        return [event["event_id"] for event in self.json(path, **parameters)["events"]]


@pytest.fixture(scope="module")
def audit(flow: View) -> Auditor:
    return Auditor(flow)


class Logged:
    """Five events in the log with the same aggregate, correlation, user and type."""

    def __init__(self) -> None:
        self.name = uuid4().hex
        metadata = {"service_name": "/shop", "correlation_id": f"c-{self.name}", "user_id": f"u-{self.name}"}
        self.events = [
            an_event(
                event_type=f"test.{self.name}",
                aggregate_id=f"a-{self.name}",
                timestamp=LONG_AGO + timedelta(minutes=minute),
                metadata=metadata,
                payload={"minute": minute},
            )
            for minute in range(5)
        ]
        self.ids = [str(event.event_id) for event in self.events]


@pytest.fixture(scope="module")
def logged(flow: View) -> Logged:
    made = Logged()
    assert flow.publish_all([*made.events, an_event(timestamp=LONG_AGO)]).status_code == 202
    assert flow.arrive(made.events)
    return made


class TestHistory:
    @pytest.mark.parametrize("way", ["aggregate", "correlation", "user", "type"])
    def test_the_history_of_an_aggregate_a_correlation_a_user_and_a_type(
        self, audit: Auditor, logged: Logged, way: str
    ) -> None:
        """Both orders work, and every filter works together with a time."""
        value = {"type": f"test.{logged.name}"}.get(way, f"{way[0]}-{logged.name}")
        assert audit.ids(**{way: value, "order": "oldest"}) == logged.ids
        assert audit.ids(**{way: value}) == logged.ids[::-1]
        after = (LONG_AGO + timedelta(minutes=2)).isoformat()
        assert audit.ids(**{way: value, "from": after, "order": "oldest"}) == logged.ids[2:]

    def test_the_history_of_a_range_page_by_page(self, audit: Auditor, logged: Logged) -> None:
        to = (LONG_AGO + timedelta(minutes=3)).isoformat()
        found: list[str] = []
        asked: dict[str, Any] | None = {"from": LONG_AGO.isoformat(), "to": to, "limit": 2}
        while asked:
            page = audit.json("/events", **asked)
            found += [event["event_id"] for event in page["events"]]
            asked = asked | {"cursor": page["next"]} if page["next"] else None
        assert [event_id for event_id in found if event_id in logged.ids] == logged.ids[2::-1]
        assert len(found) == len(set(found))

    def test_an_event_is_complete(self, audit: Auditor, logged: Logged) -> None:
        event = logged.events[0]
        shown = audit.json(f"/events/{event.event_id}")
        assert (shown["event_type"], shown["payload"]) == (event.event_type, event.payload)
        assert shown["metadata"] == event.metadata_fields
        assert shown["digest"] == event.digest.hex()

    def test_an_unknown_event_is_404(self, audit: Auditor) -> None:
        assert audit.get(f"/events/{uuid4()}").status_code == 404
        assert audit.get("/events/no-uuid").status_code == 400

    def test_the_log_keeps_an_event_that_left_events(self, audit: Auditor, flow: View) -> None:
        """An event leaves `events` by deletion or after its retention."""
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        flow.database.events.delete_one({"_id": event.event_id})
        assert audit.json(f"/events/{event.event_id}")["event_id"] == str(event.event_id)


class TestSecurity:
    def test_the_settings_choose_the_types_of_security_events(self, audit: Auditor, flow: View) -> None:
        user = {"service_name": "/login", "user_id": uuid4().hex}
        kept = [an_event(event_type=name, metadata=user) for name in ("user.login_failed", "access.denied")]
        flow.publish_all([*kept, an_event(event_type="user.bought", metadata=user)])
        assert flow.arrive(kept)
        assert set(audit.ids("/security", user=user["user_id"])) == {str(event.event_id) for event in kept}
        first = audit.json("/security", user=user["user_id"], limit=1)
        rest = audit.json("/security", user=user["user_id"], limit=1, cursor=first["next"])
        assert first["events"][0]["event_id"] != rest["events"][0]["event_id"]
        assert audit.get("/security", user="somebody-else", limit=1, cursor=first["next"]).status_code == 400


class TestTypes:
    def test_a_type_has_its_count_and_its_first_and_last_time(self, audit: Auditor, logged: Logged) -> None:
        name = f"test.{logged.name}"
        page = audit.json("/types", after=name[:-1], limit=1)
        assert page["types"][0] == {
            "event_type": name,
            "count": 5,
            "first": "2020-03-03T00:00:00Z",
            "last": "2020-03-03T00:04:00Z",
        }
        since = (LONG_AGO + timedelta(minutes=3)).isoformat()
        assert audit.json("/types", **{"after": name[:-1], "limit": 1, "from": since})["types"][0]["count"] == 2


class TestFeed:
    def follow(self, audit: Auditor, events: list[Event], start: dict[str, Any]) -> list[str]:
        """Read the feed until it gave these events. Return their ids."""
        wanted, got, position = {str(event.event_id) for event in events}, [], start
        for _ in range(60):
            page = audit.json("/feed", **position, limit=50, wait_s=5)
            got += [event["event_id"] for event in page["events"] if event["event_id"] in wanted]
            position = {"cursor": page["cursor"]}
            if len(got) >= len(wanted) and not page["events"]:
                break
        return got

    @pytest.mark.slow
    def test_a_reader_of_the_feed_sees_every_event_once(self, audit: Auditor, flow: View) -> None:
        since = datetime.now(UTC) - timedelta(seconds=2)
        events = some_events(120)
        assert flow.publish_all(events).status_code == 202
        assert flow.arrive(events)
        got = self.follow(audit, events, {"since": since.isoformat()})
        assert sorted(got) == sorted(str(event.event_id) for event in events)

    def test_the_feed_can_be_read_from_the_start(self, audit: Auditor, logged: Logged) -> None:
        assert wait_until(
            lambda: len(audit.json("/feed", limit=3)["events"]) == 3, within=20
        )  # the feed stays some seconds behind
        page = audit.json("/feed", limit=3)
        assert audit.json("/feed", limit=3)["events"] == page["events"]
        following = audit.json("/feed", limit=3, cursor=page["cursor"])
        assert {event["event_id"] for event in following["events"]}.isdisjoint(
            event["event_id"] for event in page["events"]
        )

    @pytest.mark.parametrize(
        "asked",
        [
            {"cursor": "x"},
            {"cursor": "AAAA"},
            {"since": "yesterday"},
            {"wait_s": "26"},
            {"wait_s": "-1"},
            {"limit": "0"},
        ],
        ids=str,
    )
    def test_an_invalid_parameter_is_refused_by_name(self, audit: Auditor, asked: dict[str, Any]) -> None:
        answer = audit.get("/feed", **asked)
        assert answer.status_code == 400
        assert [error["where"] for error in answer.json()["errors"]] == list(asked)

    def test_a_cursor_and_a_time_exclude_one_another(self, audit: Auditor) -> None:
        cursor = audit.json("/feed", limit=1)["cursor"]
        assert audit.get("/feed", cursor=cursor, since="2026-07-01T00:00:00Z").status_code == 400

    @pytest.mark.slow
    def test_an_unreadable_event_stops_no_reader(self, audit: Auditor, flow: View) -> None:
        """No function's database user could make this change."""
        since = datetime.now(UTC) - timedelta(seconds=2)
        events = some_events(3)
        flow.publish_all(events)
        assert flow.arrive(events)
        before = flow.document("event_store", events[1])
        flow.database.event_store.update_one({"_id": events[1].event_id}, {"$set": {"payload": "none"}})
        assert len(self.follow(audit, events, {"since": since.isoformat()})) == 3
        flow.database.event_store.replace_one({"_id": events[1].event_id}, before)


@pytest.mark.fault("A9")
@pytest.mark.guarantee("G3")
def test_a_changed_event_is_shown_as_altered_by_every_reader(audit: Auditor, flow: View) -> None:
    """The root user changes a payload. Every reader of the log shows the event with `altered`."""
    since = datetime.now(UTC) - timedelta(seconds=2)
    aggregate = f"order-{uuid4()}"
    genuine, changed = some_events(2, aggregate_id=aggregate)
    flow.publish_all([genuine, changed])
    assert flow.arrive([genuine, changed])
    before = flow.document("event_store", changed)
    flow.database.event_store.update_one({"_id": changed.event_id}, {"$set": {"payload.total": 1_000_000}})
    found: dict[str, dict[str, bool]] = {}

    def fed() -> bool:
        page = audit.json("/feed", since=since.isoformat(), limit=1000)
        found["feed"] = altered(page["events"], aggregate)
        return len(found["feed"]) == 2

    assert wait_until(fed, within=20, every=0.5)
    found["page"] = altered(audit.json("/events", aggregate=aggregate)["events"], aggregate)
    found["one"] = altered([audit.json(f"/events/{event.event_id}") for event in (genuine, changed)], aggregate)
    env = flow.stack.function_environment("operator") | {"COLUMNS": "200", "NO_COLOR": "1"}
    history = CliRunner().invoke(app, ["history", "--aggregate", aggregate], env=env)
    export = ["export", "--collection", "event_store", "--aggregate", aggregate, "--format"]
    lines = CliRunner().invoke(app, [*export, "ndjson"], env=env).stdout.splitlines()
    found["ndjson"] = altered([json.loads(line) for line in lines], aggregate)
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(app, [*export, "csv"], env=env).stdout)))
    flow.database.event_store.replace_one({"_id": changed.event_id}, before)
    expected = {str(genuine.event_id): False, str(changed.event_id): True}
    assert found == dict.fromkeys(("feed", "page", "one", "ndjson"), expected)
    assert {row["event_id"]: row["altered"] for row in rows} == {
        str(genuine.event_id): "",
        str(changed.event_id): "true",
    }
    assert f"event {changed.event_id} was altered" in history.stderr
    assert str(genuine.event_id) not in history.stderr


def altered(events: list[dict[str, Any]], aggregate: str) -> dict[str, bool]:
    """Return by id if an event of the aggregate is shown as altered."""
    own = [event for event in events if event["aggregate_id"] == aggregate]
    assert all(event.get("altered", True) is True for event in own), "the field is true or absent"
    return {event["event_id"]: "altered" in event for event in own}


class TestHealth:
    def test_health_has_the_figures_of_the_log(self, audit: Auditor, logged: Logged) -> None:
        health = audit.json("/health")
        assert health["status"] == "ok"
        assert health["events"] >= 5
        assert health["first"] <= health["last"]


class TestPermissions:
    @pytest.mark.parametrize("path", PATHS)
    def test_a_caller_without_the_permission_is_refused(self, audit: Auditor, path: str) -> None:
        for headers in ({"authorization": ""}, {"authorization": "Bearer x"}, bearer("ann", exp=1)):
            assert audit.get(path, headers).status_code == 401
        for headers in (bearer("ann"), bearer("ann", "events:read:all", "events:publish:any"), bearer("audit:read")):
            assert audit.get(path, headers).status_code == 403

    @pytest.mark.parametrize("path", PATHS)
    def test_a_caller_with_the_permission_is_accepted(self, audit: Auditor, path: str) -> None:
        for headers in (AUDITOR, bearer("ada", "admin")):
            assert audit.get(path, headers).status_code in (200, 404)

    @pytest.mark.guarantee("R33")
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("path", PATHS)
    def test_no_method_changes_or_deletes(self, audit: Auditor, flow: View, path: str, method: str) -> None:
        answer = flow.http.request(method, audit.url + path, headers=bearer("ada", "admin", "audit:read"))
        assert answer.status_code == 405

    @pytest.mark.guarantee("R33")
    def test_the_database_user_of_audit_can_only_read_the_log(self, stack: Stack) -> None:
        with MongoClient[Document](stack.function_environment("audit")["MONGODB_URI"]) as client:
            database = client[stack.database]
            refused: list[Callable[[], object]] = [
                lambda: database.event_store.insert_one({}),
                lambda: database.event_store.update_many({}, {"$set": {"x": 1}}),
                lambda: database.event_store.delete_many({}),
                lambda: database.event_store.aggregate([{"$out": "other"}]),
                database.event_store.drop,
                database.events.find_one,
                database.archive.find_one,
                database.dead_letters.find_one,
            ]
            for change in refused:
                with pytest.raises(OperationFailure) as error:
                    change()
                assert error.value.code == 13
            database.event_store.find_one()


class TestStrict:
    @pytest.mark.guarantee("R30")
    @pytest.mark.parametrize(
        "query",
        [
            "user[$ne]=x",
            "user.$ne=x",
            "$where=1",
            "service=/shop",
            "filter={}",
            "pipeline=[]",
            "limit=1&limit=2",
            "user=",
        ],
    )
    def test_an_unknown_parameter_is_refused_by_name(self, audit: Auditor, query: str) -> None:
        answer = audit.get(f"/events?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["where"] == query.partition("=")[0]

    @pytest.mark.guarantee("R30")
    @pytest.mark.parametrize("value", ["$ne", '{"$ne": null}', ".*", "^a-", "[object Object]"])
    @pytest.mark.parametrize("name", ["user", "aggregate", "correlation", "type"])
    def test_an_operator_is_a_plain_value(self, audit: Auditor, logged: Logged, name: str, value: str) -> None:
        assert audit.ids(**{name: value}) == []

    @pytest.mark.guarantee("R23")
    @pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "1e3"])
    @pytest.mark.parametrize("path", ["/events", "/security", "/types", "/feed"])
    def test_a_limit_out_of_range_is_refused(self, audit: Auditor, path: str, limit: str) -> None:
        assert audit.get(path, limit=limit).status_code == 400
