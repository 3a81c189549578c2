"""`admin` over HTTP: browse, statistics, export and delete in `events`, for admins only."""

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
PARAMETERS["findEventDetail"] = {"source": "/shop", "id": "7"}
NOWHERE = "7c0ffee7-0000-4000-8000-000000000000"
"""An id without an event. It is constant, because xdist's processes must collect the same tests."""
REQUESTS = [
    (operation.method, operation.path.replace("{event_id}", NOWHERE), PARAMETERS.get(operation.name, {}))
    for operation in OPERATIONS
]


class Admin:
    """A caller of `admin`."""

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
    """Six events in one correlation, of two users and two services. Some values look like formulas."""

    def __init__(self) -> None:
        self.name = uuid4().hex
        start = datetime.now(UTC) - timedelta(minutes=30)
        self.events = [
            an_event(
                event_type=f"{self.name}.{('created', 'paid', 'failed')[number % 3]}",
                aggregate_id=f"=order-{self.name}",
                timestamp=start + timedelta(minutes=number),
                metadata={
                    "service_name": ("/shop", "-pay")[number % 2],
                    "correlation_id": f"@{self.name}",
                    "user_id": f"+{self.name}-{number % 2}",
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
        name = published.name
        asked = {
            "correlation": f"@{name}",
            "aggregate": f"=order-{name}",
            "type": f"{name}.created",
            "user": f"+{name}-0",
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
            "correlation": f"@{published.name}",
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
        assert [value[sort] for value in values] == sorted(value[sort] for value in values)

    @pytest.mark.parametrize("query", ["sort=payload", "sort=$where", "limit=0", "limit=1001", "skip=5", "user[$ne]=x"])
    def test_an_unknown_parameter_is_refused_by_name(self, admin: Admin, query: str) -> None:
        answer = admin.get(f"/events?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["where"] == query.partition("=")[0]


class TestDetail:
    def test_an_event_with_its_related_events_and_its_outbox_state(
        self, admin: Admin, flow: View, published: Published
    ) -> None:
        detail = admin.json(f"/events/{published.ids[2]}")
        assert detail["event"]["event_id"] == published.ids[2]
        assert [related["event_id"] for related in detail["timeline"]] == published.ids
        assert detail["outbox"]["state"] in ("new", "pending", "in_log")
        assert flow.arrive(published.events)
        assert flow.relayed(published.events)
        outbox = admin.json(f"/events/{published.ids[2]}")["outbox"]
        assert outbox["state"] == "in_log"
        assert outbox["expires_at"]

    def test_an_unknown_event_is_404(self, admin: Admin) -> None:
        assert admin.get(f"/events/{uuid4()}").status_code == 404
        assert admin.get("/events/1").status_code == 400


class TestStatistics:
    def test_the_figures_of_the_last_hours(self, admin: Admin, published: Published) -> None:
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

    def test_the_overview_of_a_user(self, admin: Admin, published: Published) -> None:
        found = admin.json("/user", user=f"+{published.name}-1", hours=1)
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
    def test_every_format_holds_the_events_of_the_pages(
        self, admin: Admin, published: Published, by: str, order: str
    ) -> None:
        asked = {"correlation": f"@{published.name}", "order": order}
        asked |= {"user": f"+{published.name}-1"} if by != "correlation" else {}
        asked |= {"type": f"{published.name}.paid", "text": "=1+1"} if by == "everything" else {}
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
        text = admin.get("/export", correlation=f"@{published.name}", format="csv").text
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert not any(cell.startswith(FORMULA) for row in rows for cell in row.values())
        assert {row["aggregate_id"] for row in rows} == {f"'=order-{published.name}"}
        assert {row["correlation_id"] for row in rows} == {f"'@{published.name}"}
        assert "'-pay" in {row["service_name"] for row in rows}

    @pytest.mark.parametrize("query", ["format=xml", "limit=5", "cursor=x", "sort=type", "$where=1"])
    def test_an_unknown_parameter_is_refused_by_name(self, admin: Admin, query: str) -> None:
        assert admin.get(f"/export?{query}").status_code == 400

    def test_an_unavailable_database_is_a_503_before_the_first_byte(self, admin: Admin, flow: View) -> None:
        with failing(flow, "find"):
            answer = admin.get("/export", type="none")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"

    def test_an_export_that_breaks_off_is_visibly_incomplete(self, admin: Admin, flow: View) -> None:
        """MongoDB fails after the first batch: the connection ends without the end of the body."""
        name = uuid4().hex
        events = some_events(600, event_type=name, payload={"text": "x" * 500})
        assert flow.publish_all(events).status_code == 202
        with failing(flow, "getMore"), pytest.raises(httpx.RemoteProtocolError):
            admin.get("/export", type=name, format="ndjson")
        assert len(admin.get("/export", type=name, format="ndjson").text.splitlines()) == 600


@contextmanager
def failing(flow: View, command: str) -> Iterator[None]:
    """Make this command of `admin` fail in the server."""
    fail = flow.database.client.admin.command
    data = {"failCommands": [command], "appName": "twofold-admin", "errorCode": 8, "closeConnection": False}
    fail("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
    try:
        yield
    finally:
        fail("configureFailPoint", "failCommand", mode="off")


@pytest.mark.guarantee("G1", "G5")
class TestDelete:
    def test_an_event_that_the_log_lacks_stays(self, admin: Admin, flow: View) -> None:
        """The event has an outbox entry, so the deletion is refused without a change."""
        event = an_event()
        flow.accept(event)
        answer = admin.delete(event, reason="hurry")
        assert answer.status_code == 409
        assert answer.json()["title"] == "not-in-log"
        assert flow.document("events", event)
        assert flow.database.archive.count_documents({"event_id": event.event_id}) == 0

    def test_a_deletion_is_archived_with_name_and_reason(self, admin: Admin, flow: View) -> None:
        """The name is the token's subject, and the log keeps the event."""
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        assert flow.relayed([event])
        answer = admin.delete(event, reason="asked for by its customer")
        assert answer.status_code == 200
        deletion = answer.json()
        assert (deletion["event_id"], deletion["deleted_by"]) == (str(event.event_id), "ada")
        assert flow.document("events", event) is None
        assert flow.document("event_store", event)
        assert deletion in admin.json("/deletions", limit=1000)["deletions"]
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


class TestPermissions:
    @pytest.mark.guarantee("R31", "R33")
    @pytest.mark.parametrize(("method", "path", "parameters"), REQUESTS)
    def test_a_caller_without_the_permission_is_refused(
        self, admin: Admin, method: str, path: str, parameters: dict[str, Any]
    ) -> None:
        """No other permission is enough, also for reading."""
        for headers in ({"authorization": ""}, {"authorization": "Bearer x"}, bearer("ada", "admin", exp=1)):
            assert admin.ask(method, path, headers, **parameters).status_code == 401
        for headers in (bearer("ann"), bearer("ann", "events:read:all", "audit:read", "events:publish:any")):
            assert admin.ask(method, path, headers, **parameters).status_code == 403

    @pytest.mark.parametrize(("method", "path", "parameters"), REQUESTS)
    def test_a_caller_with_the_permission_is_accepted(
        self, admin: Admin, method: str, path: str, parameters: dict[str, Any]
    ) -> None:
        assert admin.ask(method, path, **parameters).status_code in (200, 404)
