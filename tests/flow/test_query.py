"""`query` over HTTP: its answers, and the limits of a user to their own events."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from dev.stack import Stack
from functions.query.operations import _server_sent_event
from tests.conftest import Spawner
from tests.helpers import View, an_event, bearer
from twofold.event.model import Event
from twofold.read.live import StreamItem
from twofold.read.models import EventOut
from twofold.settings import Settings

AUTH_LEEWAY_S = Settings.model_fields["auth_leeway_s"].default
ANN, BOB = bearer("ann"), bearer("bob")
LONG_AGO = datetime(2020, 2, 2, tzinfo=UTC)


class Caller:
    """A caller of `query`."""

    def __init__(self, flow: View, headers: dict[str, str]) -> None:
        self._flow = flow
        self._headers = headers

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        url = self._flow.stack.functions["query"].url + path
        return self._flow.http.get(
            url, params={name.rstrip("_"): value for name, value in parameters.items()}, headers=self._headers
        )

    def json(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(self, **parameters: Any) -> set[str]:
        return {event["event_id"] for event in self.json("/events", **parameters)["events"]}


@pytest.fixture(scope="module")
def ann(flow: View) -> Caller:
    return Caller(flow, ANN)


@pytest.fixture(scope="module")
def service(flow: View) -> Caller:
    return Caller(flow, bearer())


class Three:
    """Three events of one aggregate, correlation and type: of ann, of bob, and without a user."""

    def __init__(self) -> None:
        self.name = uuid4().hex
        metadata = {"service_name": f"/{self.name}", "correlation_id": self.name}
        made = [
            an_event(
                event_type=f"test.{self.name}",
                aggregate_id=self.name,
                timestamp=LONG_AGO,
                metadata=metadata | user,
                payload={"secret": self.name},
            )
            for user in ({"user_id": "ann"}, {"user_id": "bob"}, {})
        ]
        self.anns, self.bobs, self.nobodys = made
        self.all = made


@pytest.fixture(scope="module")
def three(flow: View) -> Three:
    made = Three()
    assert flow.publish_all(made.all).status_code == 202
    return made


def ids(*events: Event) -> set[str]:
    return {str(event.event_id) for event in events}


def everything(three: Three) -> dict[str, dict[str, str]]:
    """Return filters that each select the three events."""
    return {
        "type": {"type": f"test.{three.name}"},
        "aggregate": {"aggregate": three.name},
        "correlation": {"correlation": three.name},
        "service": {"service": f"/{three.name}"},
        "text": {"text": three.name, "to": (LONG_AGO + timedelta(seconds=1)).isoformat().replace("+00:00", "Z")},
    }


WAYS = ["type", "aggregate", "correlation", "service", "text"]


@pytest.mark.guarantee("G9")
class TestOwnEvents:
    @pytest.mark.parametrize("way", WAYS)
    def test_a_user_sees_only_their_own_events(self, ann: Caller, service: Caller, three: Three, way: str) -> None:
        asked = everything(three)[way]
        assert ann.ids(**asked) == ids(three.anns)
        assert service.ids(**asked) == ids(*three.all)

    @pytest.mark.guarantee("R31")
    @pytest.mark.parametrize("way", [*WAYS, "nothing"])
    def test_asking_for_another_user_is_refused(self, ann: Caller, three: Three, way: str) -> None:
        asked = everything(three).get(way, {})
        for path in ("/events", "/statistics", "/types", "/stream"):
            parameters = {
                name: value for name, value in asked.items() if path == "/events" or name not in ("text", "to")
            }
            answer = ann.get(path, **parameters, user="bob")
            assert answer.status_code == 403
            assert answer.json()["errors"][0]["where"] == "user"
        assert ann.ids(type=f"test.{three.name}", user="ann") == ids(three.anns)

    def test_another_users_event_does_not_exist(self, ann: Caller, service: Caller, three: Three) -> None:
        """The answer is the answer for an event that never existed."""
        there, never = ann.get(f"/events/{three.bobs.event_id}"), ann.get(f"/events/{uuid4()}")
        assert (there.status_code, there.content) == (never.status_code, never.content)
        assert there.status_code == 404
        assert ann.get(f"/events/{three.nobodys.event_id}").status_code == 404
        assert service.json(f"/events/{three.bobs.event_id}")["event_id"] == str(three.bobs.event_id)

    def test_counts_leak_nothing(self, ann: Caller, service: Caller, three: Three) -> None:
        at = {"from": "2020-02-01T00:00:00Z", "to": "2020-02-03T00:00:00Z"}
        for way in ("type", "aggregate", "correlation", "service"):
            asked = everything(three)[way] | at
            assert ann.json("/statistics", **asked)["total"] == 1
            assert service.json("/statistics", **asked)["total"] == 3
        counted = ann.json("/statistics", **at)
        assert counted["by_type"][f"test.{three.name}"] == 1
        assert sum(hour["events"] for hour in counted["by_hour"]) == counted["total"]

    def test_types_leak_nothing(self, flow: View, ann: Caller, service: Caller) -> None:
        hidden = f"hidden.{uuid4().hex}"
        flow.publish(an_event(event_type=hidden, metadata={"service_name": "/shop", "user_id": "bob"}))
        assert hidden not in ann.json("/types")["types"]
        assert hidden in service.json("/types")["types"]

    @pytest.mark.parametrize("by", ["cursor of another", "own cursor"])
    def test_a_cursor_gives_no_access(self, ann: Caller, service: Caller, three: Three, by: str) -> None:
        asker = service if by == "cursor of another" else ann
        given = asker.json("/events", type=f"test.{three.name}", limit=1)["next"]
        if by == "own cursor":
            assert given is None
        else:
            assert ann.get("/events", type=f"test.{three.name}", cursor=given).status_code == 400

    @pytest.mark.parametrize("flag", ["all", "include_system", "admin", "as_user", "user_id", "scope", "read_all"])
    @pytest.mark.guarantee("R31")
    def test_unknown_flags_are_refused(self, ann: Caller, flag: str) -> None:
        assert ann.get("/events", **{flag: "true"}).status_code == 400


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("path", ["/events", f"/events/{uuid4()}", "/statistics", "/types", "/stream"], ids=range(5))
class TestTokens:
    def test_without_a_token_nothing_is_shown(self, flow: View, path: str) -> None:
        assert Caller(flow, {"authorization": ""}).get(path).status_code == 401

    @pytest.mark.parametrize(
        "claims", [{"exp": 1}, {"iss": "x"}, {"aud": "x"}, {"nbf": 2**32}], ids=["exp", "iss", "aud", "nbf"]
    )
    def test_a_bad_token_shows_nothing(self, flow: View, path: str, claims: dict[str, Any]) -> None:
        assert Caller(flow, bearer("ann", **claims)).get(path).status_code == 401


@pytest.mark.guarantee("R30")
@pytest.mark.parametrize(
    "query",
    [
        "user[$ne]=x",
        "user%5B%24ne%5D=",
        "type[$regex]=.*",
        "user[]=ann",
        "$where=sleep(1000)",
        "filter={}",
        "pipeline=[]",
        "query=%7B%22%24ne%22%3A1%7D",
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=1&limit=2",
        "order=payload",
        "skip=1",
        "from[$gt]=2020-01-01T00:00:00Z",
        "cursor[$gt]=",
    ],
)
def test_a_possible_operator_is_refused(flow: View, query: str) -> None:
    answer = flow.http.get(f"{flow.stack.functions['query'].url}/events?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["where"]


@pytest.mark.guarantee("R30", "R25")
@pytest.mark.parametrize("value", [".*", "^test", '{"$ne":null}', "$ne", "[$ne]", "test\\", "(a+)+$", "%"])
def test_values_are_taken_literally(service: Caller, three: Three, value: str) -> None:
    for name in ("type", "aggregate", "correlation", "user", "service", "text"):
        assert not ids(*three.all) & service.ids(**{name: value})


@pytest.mark.guarantee("R30")
def test_a_body_changes_nothing(flow: View, three: Three) -> None:
    url = f"{flow.stack.functions['query'].url}/events?aggregate={three.name}"
    answer = flow.http.request("GET", url, json={"user": {"$ne": None}}, headers=ANN)
    assert {event["event_id"] for event in answer.json()["events"]} == ids(three.anns)
    assert flow.http.post(url, json={}, headers=ANN).status_code == 405


def test_an_event_is_complete(service: Caller, three: Three) -> None:
    shown = service.json(f"/events/{three.anns.event_id}")
    assert shown["metadata"] == {
        "service_name": f"/{three.name}",
        "correlation_id": three.name,
        "user_id": "ann",
    } | {
        name: value
        for name, value in three.anns.metadata_fields.items()
        if name not in ("service_name", "correlation_id", "user_id")
    }
    assert shown["payload"] == three.anns.payload
    assert shown["digest"] == three.anns.digest.hex()
    assert shown["timestamp"] == "2020-02-02T00:00:00Z"


@pytest.mark.guarantee("R23")
def test_pages_follow_each_other(service: Caller, three: Three) -> None:
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = service.json("/events", aggregate=three.name, limit=1, order="oldest", **cursor)
        seen += [event["event_id"] for event in page["events"]]
        cursor = {"cursor": page["next"]} if page["next"] else {}
    assert cursor == {}
    assert seen == [str(event.event_id) for event in three.all]


@pytest.mark.parametrize(
    ("path", "status"), [("/", 404), ("/Events", 404), ("/events/", 404), ("/events/x", 400), ("/a/b/c", 404)]
)
def test_an_unknown_path_is_a_problem(service: Caller, path: str, status: int) -> None:
    answer = service.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_get_is_allowed(flow: View) -> None:
    answer = flow.http.delete(f"{flow.stack.functions['query'].url}/events")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"


@pytest.mark.fault("C13")
@pytest.mark.parametrize("function", ["publish", "store", "dead_letters", "relay", "pod_events", "query", "audit"])
def test_every_error_is_a_problem(flow: View, function: str) -> None:
    url = flow.stack.functions[function].url
    for method, path in (("GET", "/no/such"), ("DELETE", "/events"), ("DELETE", "/")):
        answer = flow.http.request(method, url + path)
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["type"] == f"urn:twofold:problem:{problem['title']}"
        assert problem["detail"]


def test_statistics_are_bounded(service: Caller) -> None:
    answer = service.get("/statistics", from_="2020-01-01T00:00:00Z", to="2020-03-01T00:00:00Z")
    assert answer.status_code == 400
    assert "at most 31 days" in answer.json()["detail"]
    assert service.json("/statistics", from_="9999-12-31T23:59:59Z")["total"] == 0
    assert service.json("/statistics", to="1970-01-01T00:00:00Z")["total"] == 0


class Stream:
    """A live stream, read by a thread."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.cursors: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._response = response
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self._response.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))
                elif line.startswith("id: "):
                    self.cursors.append(line[4:])
        except httpx.HTTPError:
            pass  # the test or the server ended the stream
        self.ended.set()

    def has(self, *events: Event, within: float = 20.0) -> bool:
        """Return True if these events come in time."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            if ids(*events) <= self.seen:
                return True
            time.sleep(0.02)
        return False

    @property
    def seen(self) -> set[str]:
        return {event["event_id"] for event in self.events}

    def begun(self) -> bool:
        """Return True if the first cursor has come: the stream has every event that is published from now on."""
        until = time.monotonic() + 20
        while not self.cursors and time.monotonic() < until:
            time.sleep(0.02)
        return bool(self.cursors)

    def close(self) -> None:
        self._response.close()
        self._thread.join()


@contextmanager
def streaming(url: str, headers: dict[str, str], **parameters: str) -> Iterator[Stream]:
    with (
        httpx.Client(timeout=httpx.Timeout(30.0)) as client,
        client.stream("GET", f"{url}/stream", params=parameters, headers=headers) as response,
    ):
        stream = Stream(response)
        try:
            yield stream
        finally:
            stream.close()


@pytest.fixture
def quick(spawn: Spawner) -> str:
    """Start a `query` with frequent heartbeats and short streams."""
    return spawn("query", STREAM_HEARTBEAT_S="0.5", STREAM_S="20", STREAMS="2").url


class TestStream:
    def test_events_come_as_they_are_published(self, flow: View, quick: str) -> None:
        with streaming(quick, bearer()) as stream:
            assert stream.begun()
            made = [an_event() for _ in range(20)]
            flow.publish_all(made)
            assert stream.has(*made)

    @pytest.mark.slow
    @pytest.mark.guarantee("G9")
    def test_a_users_stream_has_only_their_own_events(self, flow: View, quick: str) -> None:
        with streaming(quick, ANN) as stream:
            assert stream.begun()
            three = Three()
            flow.publish_all([three.bobs, three.nobodys, three.anns])
            assert stream.has(three.anns)
            assert stream.seen == ids(three.anns)

    def test_filters_apply_to_a_stream(self, flow: View, quick: str) -> None:
        three, other = Three(), an_event()
        with streaming(quick, bearer(), type=f"test.{three.name}", user="bob") as stream:
            assert stream.begun()
            flow.publish_all([other, *three.all])
            assert stream.has(three.bobs)
            assert stream.seen == ids(three.bobs)

    @pytest.mark.slow
    def test_a_stream_continues_behind_the_last_event(self, flow: View, quick: str) -> None:
        """The events of the time without a connection come too, and no event comes twice."""
        first, meanwhile, then = an_event(), an_event(), an_event()
        with streaming(quick, bearer()) as stream:
            assert stream.begun()
            flow.publish(first)
            assert stream.has(first)
            cursor = stream.cursors[-1]
        flow.publish(meanwhile)
        with streaming(quick, bearer() | {"last-event-id": cursor}) as stream:
            flow.publish(then)
            assert stream.has(meanwhile, then)
            assert not ids(first) & stream.seen

    @pytest.mark.slow
    def test_a_heartbeat_moves_the_cursor(self, flow: View, quick: str) -> None:
        """The cursor of a reader without events stays within the server's oplog."""
        with streaming(quick, ANN) as stream:
            assert stream.begun()
            beats = len(stream.cursors)
            until = time.monotonic() + 20
            while len(stream.cursors) < beats + 2 and time.monotonic() < until:
                time.sleep(0.05)
            cursor = stream.cursors[-1]
        three = Three()
        flow.publish(three.anns)
        with streaming(quick, ANN | {"last-event-id": cursor}) as stream:
            assert stream.has(three.anns)

    @pytest.mark.fault("C13")
    def test_an_empty_last_event_id_is_as_none(self, flow: View, quick: str) -> None:
        """A reader without an event yet sends it empty."""
        with streaming(quick, bearer() | {"last-event-id": ""}) as stream:
            assert stream.begun()
            event = an_event()
            flow.publish(event)
            assert stream.has(event)

    @pytest.mark.fault("C14")
    def test_an_item_has_one_line_of_data_for_every_reader(self) -> None:
        """Python's `splitlines` also ends a line at U+0085, U+2028 and U+2029."""
        event = an_event(payload={"text": "a\x85b\u2028c\u2029d\x0b\x0c\x1c\x1d\x1e"})
        shown = EventOut.of_decoded(event.to_document() | {"stored_at": datetime.now(UTC)})
        lines = _server_sent_event(StreamItem("abc", shown)).decode().splitlines()
        assert lines[:2] == ["id: abc", "event: event"]
        assert json.loads(lines[2].removeprefix("data: "))["payload"] == event.payload
        assert lines[3:] == [""]

    @pytest.mark.guarantee("R30")
    @pytest.mark.parametrize("cursor", ["x", "AAAA", '{"$gt": ""}', "é", "A" * 9000, "gmQ"], ids=range(6))
    def test_an_invalid_cursor_is_refused(self, flow: View, cursor: str) -> None:
        url = f"{flow.stack.functions['query'].url}/stream"
        answer = flow.http.get(url, headers=[(b"last-event-id", cursor.encode())])
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["where"] == "Last-Event-ID"

    @pytest.mark.slow
    def test_the_number_of_streams_is_bounded_and_an_ended_stream_frees_its_place(self, quick: str) -> None:
        with streaming(quick, bearer()) as first, streaming(quick, bearer()) as second:
            assert (first.status, second.status) == (200, 200)
            refused = httpx.get(f"{quick}/stream", headers=bearer())
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
        until = time.monotonic() + 20
        status = 503
        while status == 503 and time.monotonic() < until:
            with streaming(quick, bearer()) as again:
                status = again.status
        assert status == 200

    def test_a_stream_ends_after_its_time(self, spawn: Spawner) -> None:
        with streaming(spawn("query", STREAM_S="1").url, bearer()) as stream:
            assert stream.ended.wait(20)
            assert stream.cursors

    @pytest.mark.slow
    @pytest.mark.guarantee("G9")
    def test_a_stream_ends_with_its_token(self, quick: str) -> None:
        """The leeway for the issuer's clock is included."""
        with streaming(quick, bearer("ann", exp=time.time() - AUTH_LEEWAY_S + 6)) as stream:
            assert stream.status == 200
            assert stream.ended.wait(20)
        assert (
            httpx.get(f"{quick}/types", headers=bearer("ann", exp=time.time() - AUTH_LEEWAY_S - 1)).status_code == 401
        )

    @pytest.mark.slow
    def test_a_stream_ends_with_its_function(self, spawn: Spawner) -> None:
        function = spawn("query")
        with streaming(function.url, bearer()) as stream:
            assert stream.begun()
            function.terminate()
            assert stream.ended.wait(20)


@pytest.mark.guarantee("G3", "G9")
def test_the_database_user_of_query_can_only_read(stack: Stack) -> None:
    uri = stack.function_environment("query")["MONGODB_URI"]
    with MongoClient[dict[str, Any]](uri) as client:
        database = client[stack.database]
        for attempt in (
            lambda: database.events.insert_one({}),
            lambda: database.events.update_many({}, {"$set": {"x": 1}}),
            lambda: database.events.delete_many({}),
            database.event_store.find_one,
            database.dead_letters.find_one,
        ):
            with pytest.raises(OperationFailure) as refused:
                attempt()
            assert refused.value.code == 13
