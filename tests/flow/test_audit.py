"""`audit` over HTTP: what auditors find in the log, that nobody else does, and that nothing is changed through it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from dev.process.child import wait_until
from dev.stack import Stack
from functions.audit.operations import OPERATIONS
from tests.helpers import View, an_event, bearer, some_events
from twofold.event.model import Event
from twofold.mongo.client import Document

pytestmark = pytest.mark.guarantee("G9", "G3")

AUDITOR = bearer("olga", "audit:read")
LONG_AGO = datetime(2020, 3, 3, tzinfo=UTC)
NOWHERE = "7c0ffee7-0000-4000-8000-000000000000"
"""No event's id; the same in each of xdist's processes, which must collect the same tests."""
PATHS = [operation.path.replace("{event_id}", NOWHERE) for operation in OPERATIONS]


class Auditor:
    """Asks `audit`."""

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
    """Five events in the log, of one aggregate, one correlation, one user and one type, and a stranger."""

    def __init__(self) -> None:
        self.mark = uuid4().hex
        metadata = {"service_name": "/shop", "correlation_id": f"c-{self.mark}", "user_id": f"u-{self.mark}"}
        self.events = [
            an_event(
                event_type=f"test.{self.mark}",
                aggregate_id=f"a-{self.mark}",
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
    def test_of_an_aggregate_a_correlation_a_user_and_a_type(self, audit: Auditor, logged: Logged, way: str) -> None:
        """As it happened, or the newest first; and in any combination with a time."""
        value = {"type": f"test.{logged.mark}"}.get(way, f"{way[0]}-{logged.mark}")
        assert audit.ids(**{way: value, "order": "oldest"}) == logged.ids
        assert audit.ids(**{way: value}) == logged.ids[::-1]
        after = (LONG_AGO + timedelta(minutes=2)).isoformat()
        assert audit.ids(**{way: value, "from": after, "order": "oldest"}) == logged.ids[2:]

    def test_of_a_range_page_by_page(self, audit: Auditor, logged: Logged) -> None:
        to = (LONG_AGO + timedelta(minutes=3)).isoformat()
        found: list[str] = []
        asked: dict[str, Any] | None = {"from": LONG_AGO.isoformat(), "to": to, "limit": 2}
        while asked:
            page = audit.json("/events", **asked)
            found += [event["event_id"] for event in page["events"]]
            asked = asked | {"cursor": page["next"]} if page["next"] else None
        assert [event_id for event_id in found if event_id in logged.ids] == logged.ids[2::-1]
        assert len(found) == len(set(found))

    def test_an_event_is_shown_whole(self, audit: Auditor, logged: Logged) -> None:
        event = logged.events[0]
        shown = audit.json(f"/events/{event.event_id}")
        assert (shown["event_type"], shown["payload"]) == (event.event_type, event.payload)
        assert shown["metadata"] == event.metadata_fields
        assert shown["digest"] == event.digest.hex()

    def test_one_that_is_not_there_is_told(self, audit: Auditor) -> None:
        assert audit.get(f"/events/{uuid4()}").status_code == 404
        assert audit.get("/events/no-uuid").status_code == 400

    def test_what_left_events_is_still_there(self, audit: Auditor, flow: View) -> None:
        """Deleted, or expired after 30 days: the log is for ever."""
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        flow.database.events.delete_one({"_id": event.event_id})
        assert audit.json(f"/events/{event.event_id}")["event_id"] == str(event.event_id)


class TestSecurity:
    def test_only_events_of_the_types_that_are_set_are_shown(self, audit: Auditor, flow: View) -> None:
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
    def test_count_first_and_last_of_each_type(self, audit: Auditor, logged: Logged) -> None:
        name = f"test.{logged.mark}"
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
        """The ids of those events as the feed gives them, until it has them all."""
        wanted, got, place = {str(event.event_id) for event in events}, [], start
        for _ in range(60):
            page = audit.json("/feed", **place, limit=50, wait_s=5)
            got += [event["event_id"] for event in page["events"] if event["event_id"] in wanted]
            place = {"cursor": page["cursor"]}
            if len(got) >= len(wanted) and not page["events"]:
                break
        return got

    @pytest.mark.slow
    def test_a_reader_that_goes_on_sees_each_event_once(self, audit: Auditor, flow: View) -> None:
        since = datetime.now(UTC) - timedelta(seconds=2)
        events = some_events(120)
        assert flow.publish_all(events).status_code == 202
        assert flow.arrive(events)
        got = self.follow(audit, events, {"since": since.isoformat()})
        assert sorted(got) == sorted(str(event.event_id) for event in events)

    def test_it_can_be_read_from_the_start(self, audit: Auditor, logged: Logged) -> None:
        assert wait_until(
            lambda: len(audit.json("/feed", limit=3)["events"]) == 3, within=20
        )  # it stays seconds behind
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
    def test_what_can_not_be_meant_is_refused_by_name(self, audit: Auditor, asked: dict[str, Any]) -> None:
        answer = audit.get("/feed", **asked)
        assert answer.status_code == 400
        assert [error["where"] for error in answer.json()["errors"]] == list(asked)

    def test_a_cursor_and_a_time_are_not_both_a_place(self, audit: Auditor) -> None:
        cursor = audit.json("/feed", limit=1)["cursor"]
        assert audit.get("/feed", cursor=cursor, since="2026-07-01T00:00:00Z").status_code == 400

    @pytest.mark.slow
    def test_an_event_that_somebody_made_unreadable_stops_nobody(self, audit: Auditor, flow: View) -> None:
        """Which only somebody with more rights than any function could do."""
        since = datetime.now(UTC) - timedelta(seconds=2)
        events = some_events(3)
        flow.publish_all(events)
        assert flow.arrive(events)
        before = flow.document("event_store", events[1])
        flow.database.event_store.update_one({"_id": events[1].event_id}, {"$set": {"payload": "none"}})
        assert len(self.follow(audit, events, {"since": since.isoformat()})) == 3
        flow.database.event_store.replace_one({"_id": events[1].event_id}, before)


class TestHealth:
    def test_it_says_what_the_log_holds(self, audit: Auditor, logged: Logged) -> None:
        health = audit.json("/health")
        assert health["status"] == "ok"
        assert health["events"] >= 5
        assert health["first"] <= health["last"]


class TestWhoMay:
    @pytest.mark.parametrize("path", PATHS)
    def test_nobody_without_the_right(self, audit: Auditor, path: str) -> None:
        for headers in ({"authorization": ""}, {"authorization": "Bearer x"}, bearer("ann", exp=1)):
            assert audit.get(path, headers).status_code == 401
        for headers in (bearer("ann"), bearer("ann", "events:read:all", "events:publish:any"), bearer("audit:read")):
            assert audit.get(path, headers).status_code == 403

    @pytest.mark.parametrize("path", PATHS)
    def test_whoever_has_it(self, audit: Auditor, path: str) -> None:
        for headers in (AUDITOR, bearer("ada", "admin")):
            assert audit.get(path, headers).status_code in (200, 404)

    @pytest.mark.guarantee("R33")
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("path", PATHS)
    def test_nothing_can_be_changed_or_deleted(self, audit: Auditor, flow: View, path: str, method: str) -> None:
        answer = flow.http.request(method, audit.url + path, headers=bearer("ada", "admin", "audit:read"))
        assert answer.status_code == 405

    @pytest.mark.guarantee("R33")
    def test_its_database_user_can_only_read_the_log(self, stack: Stack) -> None:
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
    def test_what_is_not_known_is_refused_by_name(self, audit: Auditor, query: str) -> None:
        answer = audit.get(f"/events?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["where"] == query.partition("=")[0]

    @pytest.mark.guarantee("R30")
    @pytest.mark.parametrize("value", ["$ne", '{"$ne": null}', ".*", "^a-", "[object Object]"])
    @pytest.mark.parametrize("name", ["user", "aggregate", "correlation", "type"])
    def test_what_looks_like_an_operator_is_a_value(
        self, audit: Auditor, logged: Logged, name: str, value: str
    ) -> None:
        assert audit.ids(**{name: value}) == []

    @pytest.mark.guarantee("R23")
    @pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "1e3"])
    @pytest.mark.parametrize("path", ["/events", "/security", "/types", "/feed"])
    def test_limits_are_limits(self, audit: Auditor, path: str, limit: str) -> None:
        assert audit.get(path, limit=limit).status_code == 400
