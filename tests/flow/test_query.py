"""`query` over HTTP: what it answers, and that nobody sees through it what isn't theirs."""

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
from tests.conftest import Spawner
from tests.helpers import View, an_event, bearer
from twofold.event.model import Event
from twofold.settings import Settings

AUTH_LEEWAY_S = Settings.model_fields["auth_leeway_s"].default
ANN, BOB = bearer("ann"), bearer("bob")
LONG_AGO = datetime(2020, 2, 2, tzinfo=UTC)


class Asking:
    """Asks `query`, as one caller."""

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
def ann(flow: View) -> Asking:
    return Asking(flow, ANN)


@pytest.fixture(scope="module")
def service(flow: View) -> Asking:
    return Asking(flow, bearer())


class Two:
    """An event of ann's and one of bob's in the same aggregate, with one correlation and type; and one of nobody's."""

    def __init__(self) -> None:
        self.mark = uuid4().hex
        metadata = {"service_name": f"/{self.mark}", "correlation_id": self.mark}
        made = [
            an_event(
                event_type=f"test.{self.mark}",
                aggregate_id=self.mark,
                timestamp=LONG_AGO,
                metadata=metadata | user,
                payload={"secret": self.mark},
            )
            for user in ({"user_id": "ann"}, {"user_id": "bob"}, {})
        ]
        self.anns, self.bobs, self.nobodys = made
        self.all = made


@pytest.fixture(scope="module")
def two(flow: View) -> Two:
    made = Two()
    assert flow.publish_all(made.all).status_code == 202
    return made


def ids(*events: Event) -> set[str]:
    return {str(event.event_id) for event in events}


def everything(two: Two) -> dict[str, dict[str, str]]:
    """Each way to ask for all three events."""
    return {
        "type": {"type": f"test.{two.mark}"},
        "aggregate": {"aggregate": two.mark},
        "correlation": {"correlation": two.mark},
        "service": {"service": f"/{two.mark}"},
        "text": {"text": two.mark, "to": (LONG_AGO + timedelta(seconds=1)).isoformat().replace("+00:00", "Z")},
    }


WAYS = ["type", "aggregate", "correlation", "service", "text"]


@pytest.mark.guarantee("G9")
class TestOnesOwn:
    @pytest.mark.parametrize("way", WAYS)
    def test_a_user_sees_their_own_events_alone(self, ann: Asking, service: Asking, two: Two, way: str) -> None:
        asked = everything(two)[way]
        assert ann.ids(**asked) == ids(two.anns)
        assert service.ids(**asked) == ids(*two.all)

    @pytest.mark.guarantee("R31")
    @pytest.mark.parametrize("way", [*WAYS, "nothing"])
    def test_asking_for_another_user_is_refused(self, ann: Asking, two: Two, way: str) -> None:
        asked = everything(two).get(way, {})
        for path in ("/events", "/statistics", "/types", "/stream"):
            parameters = {
                name: value for name, value in asked.items() if path == "/events" or name not in ("text", "to")
            }
            answer = ann.get(path, **parameters, user="bob")
            assert answer.status_code == 403
            assert answer.json()["errors"][0]["where"] == "user"
        assert ann.ids(type=f"test.{two.mark}", user="ann") == ids(two.anns)

    def test_another_users_event_is_not_there(self, ann: Asking, service: Asking, two: Two) -> None:
        """Nor can it be told from one that never was."""
        there, never = ann.get(f"/events/{two.bobs.event_id}"), ann.get(f"/events/{uuid4()}")
        assert (there.status_code, there.content) == (never.status_code, never.content)
        assert there.status_code == 404
        assert ann.get(f"/events/{two.nobodys.event_id}").status_code == 404
        assert service.json(f"/events/{two.bobs.event_id}")["event_id"] == str(two.bobs.event_id)

    def test_counts_leak_nothing(self, ann: Asking, service: Asking, two: Two) -> None:
        at = {"from": "2020-02-01T00:00:00Z", "to": "2020-02-03T00:00:00Z"}
        for way in ("type", "aggregate", "correlation", "service"):
            asked = everything(two)[way] | at
            assert ann.json("/statistics", **asked)["total"] == 1
            assert service.json("/statistics", **asked)["total"] == 3
        counted = ann.json("/statistics", **at)
        assert counted["by_type"][f"test.{two.mark}"] == 1
        assert sum(hour["events"] for hour in counted["by_hour"]) == counted["total"]

    def test_types_leak_nothing(self, flow: View, ann: Asking, service: Asking) -> None:
        hidden = f"hidden.{uuid4().hex}"
        flow.publish(an_event(event_type=hidden, metadata={"service_name": "/shop", "user_id": "bob"}))
        assert hidden not in ann.json("/types")["types"]
        assert hidden in service.json("/types")["types"]

    @pytest.mark.parametrize("by", ["cursor of another", "own cursor"])
    def test_a_cursor_opens_nothing(self, ann: Asking, service: Asking, two: Two, by: str) -> None:
        asker = service if by == "cursor of another" else ann
        given = asker.json("/events", type=f"test.{two.mark}", limit=1)["next"]
        if by == "own cursor":
            assert given is None
        else:
            assert ann.get("/events", type=f"test.{two.mark}", cursor=given).status_code == 400

    @pytest.mark.parametrize("flag", ["all", "include_system", "admin", "as_user", "user_id", "scope", "read_all"])
    @pytest.mark.guarantee("R31")
    def test_no_flag_gives_more(self, ann: Asking, flag: str) -> None:
        assert ann.get("/events", **{flag: "true"}).status_code == 400


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("path", ["/events", f"/events/{uuid4()}", "/statistics", "/types", "/stream"], ids=range(5))
class TestTokens:
    def test_without_a_token_nothing_is_shown(self, flow: View, path: str) -> None:
        assert Asking(flow, {"authorization": ""}).get(path).status_code == 401

    @pytest.mark.parametrize(
        "claims", [{"exp": 1}, {"iss": "x"}, {"aud": "x"}, {"nbf": 2**32}], ids=["exp", "iss", "aud", "nbf"]
    )
    def test_a_bad_token_shows_nothing(self, flow: View, path: str, claims: dict[str, Any]) -> None:
        assert Asking(flow, bearer("ann", **claims)).get(path).status_code == 401


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
def test_what_could_be_an_operator_is_refused(flow: View, query: str) -> None:
    answer = flow.http.get(f"{flow.stack.functions['query'].url}/events?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["where"]


@pytest.mark.guarantee("R30", "R25")
@pytest.mark.parametrize("value", [".*", "^test", '{"$ne":null}', "$ne", "[$ne]", "test\\", "(a+)+$", "%"])
def test_values_are_taken_literally(service: Asking, two: Two, value: str) -> None:
    for name in ("type", "aggregate", "correlation", "user", "service", "text"):
        assert not ids(*two.all) & service.ids(**{name: value})


@pytest.mark.guarantee("R30")
def test_a_body_changes_nothing(flow: View, two: Two) -> None:
    url = f"{flow.stack.functions['query'].url}/events?aggregate={two.mark}"
    answer = flow.http.request("GET", url, json={"user": {"$ne": None}}, headers=ANN)
    assert {event["event_id"] for event in answer.json()["events"]} == ids(two.anns)
    assert flow.http.post(url, json={}, headers=ANN).status_code == 405


def test_an_event_is_shown_whole(service: Asking, two: Two) -> None:
    shown = service.json(f"/events/{two.anns.event_id}")
    assert shown["metadata"] == {
        "service_name": f"/{two.mark}",
        "correlation_id": two.mark,
        "user_id": "ann",
    } | {
        name: value
        for name, value in two.anns.metadata_fields.items()
        if name not in ("service_name", "correlation_id", "user_id")
    }
    assert shown["payload"] == two.anns.payload
    assert shown["digest"] == two.anns.digest.hex()
    assert shown["timestamp"] == "2020-02-02T00:00:00Z"


@pytest.mark.guarantee("R23")
def test_pages_follow_each_other(service: Asking, two: Two) -> None:
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = service.json("/events", aggregate=two.mark, limit=1, order="oldest", **cursor)
        seen += [event["event_id"] for event in page["events"]]
        cursor = {"cursor": page["next"]} if page["next"] else {}
    assert cursor == {}
    assert seen == [str(event.event_id) for event in sorted(two.all, key=lambda event: event.event_id.bytes)]


@pytest.mark.parametrize(
    ("path", "status"), [("/", 404), ("/Events", 404), ("/events/", 404), ("/events/x", 400), ("/a/b/c", 404)]
)
def test_what_is_not_there_is_said(service: Asking, path: str, status: int) -> None:
    answer = service.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_gets_are_taken(flow: View) -> None:
    answer = flow.http.delete(f"{flow.stack.functions['query'].url}/events")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"


def test_statistics_are_bounded(service: Asking) -> None:
    answer = service.get("/statistics", from_="2020-01-01T00:00:00Z", to="2020-03-01T00:00:00Z")
    assert answer.status_code == 400
    assert "at most 31 days" in answer.json()["detail"]
    assert service.json("/statistics", from_="9999-12-31T23:59:59Z")["total"] == 0
    assert service.json("/statistics", to="1970-01-01T00:00:00Z")["total"] == 0


class Stream:
    """A live stream, read by a thread."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.places: list[str] = []
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
                    self.places.append(line[4:])
        except httpx.HTTPError:
            pass  # the test left it, or the server did: either is what the tests look at
        self.ended.set()

    def has(self, *events: Event, within: float = 20.0) -> bool:
        """Whether all of these come."""
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
        """Whether its first place has come: what is published from then on is in it."""
        until = time.monotonic() + 20
        while not self.places and time.monotonic() < until:
            time.sleep(0.02)
        return bool(self.places)

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
    """A `query` whose streams beat and end quickly."""
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
    def test_a_user_gets_their_own_alone(self, flow: View, quick: str) -> None:
        with streaming(quick, ANN) as stream:
            assert stream.begun()
            two = Two()
            flow.publish_all([two.bobs, two.nobodys, two.anns])
            assert stream.has(two.anns)
            assert stream.seen == ids(two.anns)

    def test_filters_hold(self, flow: View, quick: str) -> None:
        two, other = Two(), an_event()
        with streaming(quick, bearer(), type=f"test.{two.mark}", user="bob") as stream:
            assert stream.begun()
            flow.publish_all([other, *two.all])
            assert stream.has(two.bobs)
            assert stream.seen == ids(two.bobs)

    @pytest.mark.slow
    def test_it_goes_on_where_it_was_left(self, flow: View, quick: str) -> None:
        """What was published while nobody was connected comes too, and nothing twice."""
        first, meanwhile, then = an_event(), an_event(), an_event()
        with streaming(quick, bearer()) as stream:
            assert stream.begun()
            flow.publish(first)
            assert stream.has(first)
            place = stream.places[-1]
        flow.publish(meanwhile)
        with streaming(quick, bearer() | {"last-event-id": place}) as stream:
            flow.publish(then)
            assert stream.has(meanwhile, then)
            assert not ids(first) & stream.seen

    @pytest.mark.slow
    def test_a_heart_beat_is_a_place_too(self, flow: View, quick: str) -> None:
        """A reader for whom nothing came does not fall behind what the server still remembers."""
        with streaming(quick, ANN) as stream:
            assert stream.begun()
            beats = len(stream.places)
            until = time.monotonic() + 20
            while len(stream.places) < beats + 2 and time.monotonic() < until:
                time.sleep(0.05)
            place = stream.places[-1]
        two = Two()
        flow.publish(two.anns)
        with streaming(quick, ANN | {"last-event-id": place}) as stream:
            assert stream.has(two.anns)

    @pytest.mark.guarantee("R30")
    @pytest.mark.parametrize("place", ["x", "AAAA", '{"$gt": ""}', "é", "A" * 9000, "gmQ"], ids=range(6))
    def test_a_made_up_place_is_refused(self, flow: View, place: str) -> None:
        url = f"{flow.stack.functions['query'].url}/stream"
        answer = flow.http.get(url, headers=[(b"last-event-id", place.encode())])
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["where"] == "Last-Event-ID"

    @pytest.mark.slow
    def test_there_are_only_so_many_at_once_and_one_that_is_left_makes_room(self, quick: str) -> None:
        with streaming(quick, bearer()) as one, streaming(quick, bearer()) as two:
            assert (one.status, two.status) == (200, 200)
            refused = httpx.get(f"{quick}/stream", headers=bearer())
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
        until = time.monotonic() + 20
        status = 503
        while status == 503 and time.monotonic() < until:
            with streaming(quick, bearer()) as again:
                status = again.status
        assert status == 200

    def test_it_ends_after_its_time(self, spawn: Spawner) -> None:
        with streaming(spawn("query", STREAM_S="1").url, bearer()) as stream:
            assert stream.ended.wait(20)
            assert stream.places

    @pytest.mark.slow
    @pytest.mark.guarantee("G9")
    def test_it_ends_with_its_token(self, quick: str) -> None:
        """The leeway of the issuer's clock included."""
        with streaming(quick, bearer("ann", exp=time.time() - AUTH_LEEWAY_S + 6)) as stream:
            assert stream.status == 200
            assert stream.ended.wait(20)
        assert (
            httpx.get(f"{quick}/types", headers=bearer("ann", exp=time.time() - AUTH_LEEWAY_S - 1)).status_code == 401
        )

    @pytest.mark.slow
    def test_it_ends_when_the_function_does(self, spawn: Spawner) -> None:
        function = spawn("query")
        with streaming(function.url, bearer()) as stream:
            assert stream.begun()
            function.terminate()
            assert stream.ended.wait(20)


@pytest.mark.guarantee("G3", "G9")
def test_its_database_user_can_only_read(stack: Stack) -> None:
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
