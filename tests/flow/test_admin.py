"""`admin` over HTTP: what admins see of `events`, export and delete, and that nobody else does."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from functions.admin.operations import OPERATIONS
from tests.helpers import View, an_event, bearer, some_events
from twofold.event.model import Event
from twofold.read.export import FORMULA

pytestmark = pytest.mark.guarantee("G9")

ADMIN = bearer("ada", "admin")
PARAMETERS = {"deleteEvent": {"reason": "a test"}, "getUserOverview": {"user": "ann"}}
NOWHERE = "7c0ffee7-0000-4000-8000-000000000000"
"""No event's id; the same in each of xdist's processes, which must collect the same tests."""
ASKED = [(each.method, each.path.replace("{event_id}", NOWHERE), PARAMETERS.get(each.name, {})) for each in OPERATIONS]


class Admin:
    """Asks `admin`."""

    def __init__(self, flow: View) -> None:
        self._flow = flow
        self.url = flow.stack.functions["admin"].url

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
        return self._flow.http.request(
            method, self.url + path, params=parameters or None, headers=ADMIN if headers is None else headers
        )

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.ask("GET", path, **parameters)

    def json(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def delete(self, event: Event, **parameters: Any) -> httpx.Response:
        return self.ask("DELETE", f"/events/{event.event_id}", **parameters)


@pytest.fixture(scope="module")
def admin(flow: View) -> Admin:
    return Admin(flow)


class Published:
    """Six events of two users and services in one correlation, of types and with values of their own."""

    def __init__(self) -> None:
        self.mark = uuid4().hex
        start = datetime.now(UTC) - timedelta(minutes=30)
        self.events = [
            an_event(
                event_type=f"{self.mark}.{('created', 'paid', 'failed')[number % 3]}",
                aggregate_id=f"=order-{self.mark}",
                timestamp=start + timedelta(minutes=number),
                metadata={
                    "service_name": ("/shop", "-pay")[number % 2],
                    "correlation_id": f"@{self.mark}",
                    "user_id": f"+{self.mark}-{number % 2}",
                },
                payload={"text": "=1+1", "n": number},
            )
            for number in range(6)
        ]
        self.ids = [str(event.event_id) for event in self.events]


@pytest.fixture(scope="module")
def published(flow: View) -> Published:
    made = Published()
    assert flow.publish_all(made.events).status_code == 202
    return made


@pytest.mark.guarantee("R23", "R24")
class TestBrowse:
    def test_all_filters_at_once(self, admin: Admin, published: Published) -> None:
        mark = published.mark
        asked = {
            "correlation": f"@{mark}",
            "aggregate": f"=order-{mark}",
            "type": f"{mark}.created",
            "user": f"+{mark}-0",
            "service": "/shop",
            "text": "=1+1",
            "from": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
            "to": datetime.now(UTC).isoformat(),
        }
        assert [event["event_id"] for event in admin.json("/events", **asked)["events"]] == published.ids[:1]

    @pytest.mark.parametrize("sort", ["timestamp", "type", "service"])
    def test_the_order_of_a_field_page_by_page(self, admin: Admin, published: Published, sort: str) -> None:
        found: list[Any] = []
        asked: dict[str, Any] | None = {
            "correlation": f"@{published.mark}",
            "sort": sort,
            "order": "oldest",
            "limit": 2,
        }
        while asked:
            page = admin.json("/events", **asked)
            found += page["events"]
            asked = asked | {"cursor": page["next"]} if page["next"] else None
        assert sorted(event["event_id"] for event in found) == sorted(published.ids)
        values = [
            {"timestamp": event["timestamp"], "type": event["event_type"], "service": event["metadata"]["service_name"]}
            for event in found
        ]
        assert [each[sort] for each in values] == sorted(each[sort] for each in values)

    @pytest.mark.parametrize("query", ["sort=payload", "sort=$where", "limit=0", "limit=1001", "skip=5", "user[$ne]=x"])
    def test_what_is_not_known_is_refused_by_name(self, admin: Admin, query: str) -> None:
        answer = admin.get(f"/events?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["where"] == query.partition("=")[0]


class TestDetail:
    def test_an_event_with_its_kin_and_its_mark(self, admin: Admin, flow: View, published: Published) -> None:
        detail = admin.json(f"/events/{published.ids[2]}")
        assert detail["event"]["event_id"] == published.ids[2]
        assert [kin["event_id"] for kin in detail["timeline"]] == published.ids
        assert detail["outbox"]["state"] in ("new", "pending", "in_log")
        assert flow.arrive(published.events)
        assert flow.relayed(published.events)
        mark = admin.json(f"/events/{published.ids[2]}")["outbox"]
        assert mark["state"] == "in_log"
        assert mark["expires_at"]

    def test_one_that_is_not_there_is_told(self, admin: Admin) -> None:
        assert admin.get(f"/events/{uuid4()}").status_code == 404
        assert admin.get("/events/1").status_code == 400


class TestStatistics:
    def test_the_last_hours_at_a_glance(self, admin: Admin, published: Published) -> None:
        found = admin.json("/statistics", hours=2)
        assert found["total"] >= 6
        assert found["errors"] >= 2
        assert 0 < found["error_rate"] <= 1
        assert "failed" in found["error_rule"]
        assert len(found["top_types"]) <= 10
        assert len(found["top_users"]) <= 10
        assert len(found["hourly"]) in (2, 3)
        assert found["processing"]["aggregates"] >= 1
        assert "first event" in found["processing"]["rule"]

    def test_one_user(self, admin: Admin, published: Published) -> None:
        found = admin.json("/user", user=f"+{published.mark}-1", hours=1)
        assert (found["total"], found["errors"], found["aggregates"]) == (3, 1, 1)
        assert [event["event_id"] for event in found["recent"]] == published.ids[5:0:-2]

    @pytest.mark.parametrize("hours", ["0", "-1", "745", "x"])
    def test_hours_are_bounded(self, admin: Admin, hours: str) -> None:
        assert admin.get("/statistics", hours=hours).status_code == 400
        assert admin.get("/user", user="x", hours=hours).status_code == 400


@pytest.mark.guarantee("R35")
class TestExport:
    def pages(self, admin: Admin, asked: dict[str, Any]) -> list[Any]:
        page = admin.json("/events", **asked, limit=1000)
        assert page["next"] is None
        events: list[Any] = page["events"]
        return events

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    @pytest.mark.parametrize("by", ["correlation", "user", "everything"])
    def test_each_format_holds_what_browsing_the_same_shows(
        self, admin: Admin, published: Published, by: str, order: str
    ) -> None:
        asked = {"correlation": f"@{published.mark}", "order": order}
        asked |= {"user": f"+{published.mark}-1"} if by != "correlation" else {}
        asked |= {"type": f"{published.mark}.paid", "text": "=1+1"} if by == "everything" else {}
        shown = self.pages(admin, asked)
        assert len(shown) == {"correlation": 6, "user": 3, "everything": 1}[by]
        as_json = admin.get("/export", **asked)
        assert as_json.headers["content-type"] == "application/json"
        assert as_json.headers["content-disposition"] == 'attachment; filename="events.json"'
        assert as_json.json() == shown
        lines = admin.get("/export", **asked, format="ndjson").text.splitlines()
        assert [json.loads(line) for line in lines] == shown
        rows = list(csv.DictReader(io.StringIO(admin.get("/export", **asked, format="csv").text, newline="")))
        assert [row["event_id"] for row in rows] == [event["event_id"] for event in shown]
        assert [json.loads(row["payload"]) for row in rows] == [event["payload"] for event in shown]

    def test_a_spreadsheet_finds_no_formula_in_the_csv(self, admin: Admin, published: Published) -> None:
        text = admin.get("/export", correlation=f"@{published.mark}", format="csv").text
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert not any(cell.startswith(FORMULA) for row in rows for cell in row.values())
        assert {row["aggregate_id"] for row in rows} == {f"'=order-{published.mark}"}
        assert {row["correlation_id"] for row in rows} == {f"'@{published.mark}"}
        assert "'-pay" in {row["service_name"] for row in rows}

    @pytest.mark.parametrize("query", ["format=xml", "limit=5", "cursor=x", "sort=type", "$where=1"])
    def test_what_is_not_known_is_refused_by_name(self, admin: Admin, query: str) -> None:
        assert admin.get(f"/export?{query}").status_code == 400

    def test_a_database_that_is_away_is_told_before_anything_is_sent(self, admin: Admin, flow: View) -> None:
        with failing(flow, "find"):
            answer = admin.get("/export", type="none")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"

    def test_an_export_that_breaks_off_is_visibly_not_whole(self, admin: Admin, flow: View) -> None:
        """MongoDB fails behind the first batch: the connection ends without the end of the body."""
        mark = uuid4().hex
        events = some_events(600, event_type=mark, payload={"text": "x" * 500})
        assert flow.publish_all(events).status_code == 202
        with failing(flow, "getMore"), pytest.raises(httpx.RemoteProtocolError):
            admin.get("/export", type=mark, format="ndjson")
        assert len(admin.get("/export", type=mark, format="ndjson").text.splitlines()) == 600


@contextmanager
def failing(flow: View, command: str) -> Iterator[None]:
    """Let the server fail these commands of `admin`."""
    fail = flow.database.client.admin.command
    data = {"failCommands": [command], "appName": "twofold-admin", "errorCode": 8, "closeConnection": False}
    fail("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
    try:
        yield
    finally:
        fail("configureFailPoint", "failCommand", mode="off")


@pytest.mark.guarantee("G1", "G5")
class TestDelete:
    def test_what_is_not_in_the_log_stays(self, admin: Admin, flow: View) -> None:
        """Its mark is there: a clear refusal, and nothing happened."""
        event = an_event()
        flow.accept(event)
        answer = admin.delete(event, reason="hurry")
        assert answer.status_code == 409
        assert answer.json()["title"] == "not-in-log"
        assert flow.document("events", event)
        assert flow.database.archive.count_documents({"event_id": event.event_id}) == 0

    def test_what_is_in_the_log_goes_and_is_on_record(self, admin: Admin, flow: View) -> None:
        """Under the name that the token has, whatever anybody says; the log keeps the event."""
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        assert flow.relayed([event])
        answer = admin.delete(event, reason="asked for by its customer")
        assert answer.status_code == 200
        said = answer.json()
        assert (said["event_id"], said["deleted_by"]) == (str(event.event_id), "ada")
        assert flow.document("events", event) is None
        assert flow.document("event_store", event)
        assert said in admin.json("/deletions", limit=1000)["deletions"]
        assert admin.delete(event, reason="again").status_code == 404
        assert admin.get(f"/events/{event.event_id}").status_code == 404

    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"reason": ""},
            {"reason": " "},
            {"reason": "\t\u2003"},
            {"reason": "x" * 201},
            {"reason": "x", "by": "eve"},
        ],
    )
    def test_without_a_reason_nothing_is_deleted(self, admin: Admin, parameters: dict[str, Any]) -> None:
        answer = admin.delete(an_event(), **parameters)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["where"] in ("reason", "by")

    def test_deletions_come_in_pages(self, admin: Admin, flow: View) -> None:
        events = some_events(3)
        flow.publish_all(events)
        assert flow.arrive(events)
        assert flow.relayed(events)
        for event in events:
            assert admin.delete(event, reason="tidying up").status_code == 200
        first = admin.json("/deletions", limit=2)
        rest = admin.json("/deletions", limit=1, cursor=first["next"])
        listed = [line["event_id"] for line in first["deletions"] + rest["deletions"]]
        assert listed == [str(event.event_id) for event in reversed(events)]
        assert admin.get("/deletions", cursor="x").status_code == 400


class TestWhoMay:
    @pytest.mark.guarantee("R31", "R33")
    @pytest.mark.parametrize(("method", "path", "parameters"), ASKED)
    def test_nobody_without_the_right(self, admin: Admin, method: str, path: str, parameters: dict[str, Any]) -> None:
        """Not even to read, and whatever else the token may do."""
        for headers in ({"authorization": ""}, {"authorization": "Bearer x"}, bearer("ada", "admin", exp=1)):
            assert admin.ask(method, path, headers, **parameters).status_code == 401
        for headers in (bearer("ann"), bearer("ann", "events:read:all", "audit:read", "events:publish:any")):
            assert admin.ask(method, path, headers, **parameters).status_code == 403

    @pytest.mark.parametrize(("method", "path", "parameters"), ASKED)
    def test_whoever_has_it(self, admin: Admin, method: str, path: str, parameters: dict[str, Any]) -> None:
        assert admin.ask(method, path, **parameters).status_code in (200, 404)
