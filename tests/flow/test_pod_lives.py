"""One pod life, one set of events: whatever is sent of it, in whatever order, however often, and whoever dies."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.ping import ping_headers
from dev.stack.functions import FunctionProcess
from functions.pod_events.facts import ALWAYS_MAY_DIFFER, MAY_DIFFER
from tests.api_server import ApiServer, api_server
from tests.conftest import Spawner
from tests.flow.test_pod_events import arrived, documents, expected, held, send
from tests.helpers import Callers, View, callers, eventually, failing, settings_of
from tests.pods import Sent, differing, first_observed, names, new_life
from twofold.event.model import Event
from twofold.mongo.client import open_database

pytestmark = pytest.mark.guarantee("G6", "G2")


@st.composite
def parts_of_lives(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A life, and which of its states are sent, in which order: any, any number of times, but the last among them."""
    name = draw(st.sampled_from(names()))
    number = len(new_life(name))
    some = draw(st.lists(st.integers(0, number - 1), max_size=6))
    return name, draw(st.permutations([*some, number - 1]))


@pytest.mark.slow
class TestAnyStates:
    def test_sent_one_after_the_other_they_are_as_the_first_observed_each(self, flow: View) -> None:
        """In both collections, to the digest: what was seen first of a fact is what is kept of it."""
        seen: dict[str, dict[UUID, bytes]] = {}

        @settings(max_examples=60, deadline=None)
        @given(part=parts_of_lives())
        def send_some(part: tuple[str, list[int]]) -> None:
            name, positions = part
            life = new_life(name)
            states = [life[position] for position in positions]
            assert {send(flow, state).status_code for state in states} == {200}
            seen[states[0].uid] = expected(states)
            assert held(flow, "events", states[0].uid) == seen[states[0].uid]
            assert (
                {event.event_id for event in life[-1].events()} <= seen[states[0].uid].keys() <= expected(life).keys()
            )

        send_some()
        assert len(seen) > 20
        for uid, facts in seen.items():
            assert arrived(flow, uid, facts)

    async def test_sent_at_once_they_are_the_same_facts_and_differ_only_where_they_may(self, flow: View) -> None:
        """Which observation is first is then a matter of chance; both collections have the same one."""
        seen: list[tuple[list[Sent], list[Sent]]] = []
        async with callers(16) as sending:
            for name in names():
                life = new_life(name)
                states = random.choices(life, k=5) + [life[-1]] * 2
                answers = await sending.post_all(flow.stack.pod_events_url, [state.request() for state in states])
                assert {answer.status for answer in answers} == {200}
                seen.append((life, states))
        for life, states in seen:
            uid, full = life[0].uid, first_observed(life)
            stored = {document["_id"]: Event.from_document(document) for document in documents(flow, "events", uid)}
            assert stored.keys() == first_observed(states).keys()
            for event_id, event in stored.items():
                assert differing(event, full[event_id]) <= MAY_DIFFER[event.event_type] | ALWAYS_MAY_DIFFER
            assert arrived(flow, uid, {event_id: event.digest for event_id, event in stored.items()})


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as served:
        yield served


@pytest.fixture
def function(spawn: Spawner, api: ApiServer) -> FunctionProcess:
    """A process that may be killed, watching over a cluster of its own."""
    return spawn("pod_events", KUBERNETES_API_SERVER=api.url, PODS_CLUSTER=f"test-{uuid4()}")


def listed(flow: View, function: FunctionProcess) -> dict[str, Any]:
    headers, body = _ping()
    answer = flow.http.post(function.url, headers=headers, content=body)
    assert answer.status_code == 200, answer.text
    run: dict[str, Any] = answer.json()
    return run


def time_passes(flow: View, function: FunctionProcess) -> None:
    """Let the hold of a listing that died end: it is over before the next ping, a minute after the last."""
    name = f"pods of {function.environment['PODS_CLUSTER']}"
    now = flow.database.command("hello")["localTime"].replace(tzinfo=UTC)
    assert flow.database.locks.find_one({"_id": name})["expires_at"] - now < timedelta(minutes=1)
    flow.database.locks.update_one({"_id": name}, {"$set": {"expires_at": now}})


def _ping() -> tuple[dict[str, str], bytes]:
    return ping_headers("pod-events", datetime.now(UTC)), b"{}"


def _asked(api: ApiServer, times: int) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return len(api.asked) == times

    return asked


def _told(flow: View, sent: Sent) -> Callable[[], Awaitable[bool]]:
    """Whether the pod's deletion is among its events."""

    async def told() -> bool:
        return "pod.deleted" in [document["event_type"] for document in documents(flow, "events", sent.uid)]

    return told


@pytest.mark.slow
@pytest.mark.guarantee("R20")
class TestKilled:
    @pytest.mark.parametrize("command", ["find", "insert", "update"])
    async def test_at_each_step_of_a_delivery(
        self, flow: View, function: FunctionProcess, api: ApiServer, command: str
    ) -> None:
        """While it looks up, while it publishes, and before it has noted that: reconciled, all is there once."""
        sent = new_life("exit_1")[-1]
        api.put(sent.pod)
        async with callers(4) as sending, open_database(settings_of(flow.stack), "tests") as database:
            await sending.post(function.url, new_life("no_status")[0].request())  # it opens its connections
            how: dict[str, Any] = {"failCommands": [command], "blockConnection": True, "blockTimeMS": 3000}
            async with failing(database, "pod_events", **how):
                waiting = asyncio.create_task(sending.post(function.url, sent.request()))
                await asyncio.sleep(0.7)
                function.kill()
                assert (await waiting).status == 0
        function.start()
        listed(flow, function)
        types = [document["event_type"] for document in documents(flow, "events", sent.uid)]
        assert sorted(types) == sorted(event.event_type for event in sent.events())
        assert listed(flow, function)["published"] == 0

    async def test_while_it_lists(self, flow: View, function: FunctionProcess, api: ApiServer) -> None:
        """While it waits for a page. What it held is free before the next ping, and what is missing is found."""
        sent = new_life("exit_1")[-1]
        api.put(sent.pod)
        async with callers(1) as sending:
            listed(flow, function)
            api.put(new_life("no_status")[0].pod)
            api.delay_s = 30.0
            waiting = asyncio.create_task(sending.post(function.url, _ping()))
            await eventually(_asked(api, 2))
            function.kill()
            assert (await waiting).status == 0
        api.delay_s = 0.0
        function.start()
        time_passes(flow, function)
        assert listed(flow, function)["published"] == 1
        assert listed(flow, function)["published"] == 0

    async def test_between_a_deletion_and_the_memory_of_it(
        self, flow: View, function: FunctionProcess, api: ApiServer
    ) -> None:
        """`pod.deleted` is durable, and not noted: the next listing asks again, and tells it once."""
        sent = new_life("exit_1")[-1]
        api.put(sent.pod)
        listed(flow, function)
        api.remove(sent.pod)
        seen = f"{flow.stack.database}.pod_state"
        how: dict[str, Any] = {
            "failCommands": ["update"],
            "namespace": seen,
            "blockConnection": True,
            "blockTimeMS": 3000,
        }
        async with (
            callers(1) as sending,
            open_database(settings_of(flow.stack), "tests") as database,
            failing(database, "pod_events", **how),
        ):
            waiting = asyncio.create_task(sending.post(function.url, _ping()))
            await eventually(_told(flow, sent))
            assert "gone_at" not in flow.database.pod_state.find_one({"_id": sent.uid})
            function.kill()
            assert (await waiting).status == 0
        function.start()
        time_passes(flow, function)
        (before,) = [one for one in documents(flow, "events", sent.uid) if one["event_type"] == "pod.deleted"]
        run = listed(flow, function)
        assert run["published"] == 0
        (after,) = [one for one in documents(flow, "events", sent.uid) if one["event_type"] == "pod.deleted"]
        assert after["seq"] == before["seq"]
        assert listed(flow, function)["gone"] == 0

    async def test_at_any_moments_nothing_is_lost_and_nothing_is_added(
        self, flow: View, function: FunctionProcess, api: ApiServer
    ) -> None:
        """Pods live on while it dies five times; what the source gives up on, the listing finds."""
        lives = [_renamed(new_life(name), f"{name}-{turn}") for turn in range(4) for name in names()]
        async with callers(8) as sending:
            living = [asyncio.create_task(_live(sending, function.url, api, part)) for part in _parts(lives, 8)]
            for _ in range(5):
                await asyncio.sleep(random.uniform(0.1, 0.8))
                function.kill()
                await asyncio.sleep(random.uniform(0.0, 0.5))
                await asyncio.to_thread(function.start)
            await asyncio.gather(*living)
        listed(flow, function)
        assert listed(flow, function)["published"] == 0
        for life in lives:
            _check_life(flow, life)
        stored = [event for life in lives for event in _stored(flow, life)]
        assert await asyncio.to_thread(flow.relayed, stored)
        assert flow.held("event_store", stored) == {event.event_id for event in stored}


def _renamed(life: list[Sent], name: str) -> list[Sent]:
    for state in life:
        state.pod["metadata"]["name"] = name
    return life


def _parts(lives: list[list[Sent]], number: int) -> list[list[list[Sent]]]:
    return [lives[start::number] for start in range(number)]


async def _live(sending: Callers, url: str, api: ApiServer, lives: list[list[Sent]]) -> None:
    """Let the pods live, one after the other, and send their states as an ApiServerSource does."""
    for life in lives:
        for state in life:
            if state.deleted:
                api.remove(state.pod)
            else:
                api.put(state.pod)
            for attempt in range(6):
                await asyncio.sleep(0.05 * 2 ** (attempt - 1) if attempt else 0)
                if (await sending.post(url, state.request())).status == 200:
                    state.headers["taken"] = "yes"
                    break


def _stored(flow: View, life: list[Sent]) -> list[Event]:
    return [Event.from_document(document) for document in documents(flow, "events", life[0].uid)]


def _check_life(flow: View, life: list[Sent]) -> None:
    """All that the pod's last state shows is there, and nothing that none of its states shows."""
    full, stored = first_observed(life), {event.event_id: event for event in _stored(flow, life)}
    assert len(stored) == len(documents(flow, "events", life[0].uid))
    assert stored.keys() <= full.keys()
    for event_id, event in stored.items():
        assert differing(event, full[event_id]) <= MAY_DIFFER[event.event_type] | ALWAYS_MAY_DIFFER | {"cluster"}
    taken = [state for state in life if "taken" in state.headers]
    if not life[-1].deleted:
        assert {event.event_id for event in life[-1].events()} <= stored.keys()
    elif taken:
        assert "pod.deleted" in {event.event_type for event in stored.values()}
    for state in taken:
        assert {event.event_id for event in state.events()} <= stored.keys()
