"""One pod life gives one set of events: for any states, in any order, any number of times, with killed processes."""

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
from tests.pods import SourceRequest, differing, first_observed, names, new_life
from twofold.event.model import Event
from twofold.mongo.client import Document, open_database

pytestmark = pytest.mark.guarantee("G6", "G2")


@st.composite
def parts_of_lives(draw: st.DrawFn) -> tuple[str, list[int]]:
    """Draw a life and a sequence of its states. The last state of the life is among them."""
    name = draw(st.sampled_from(names()))
    number = len(new_life(name))
    some = draw(st.lists(st.integers(0, number - 1), max_size=6))
    return name, draw(st.permutations([*some, number - 1]))


@pytest.mark.slow
class TestAnyStates:
    def test_states_in_sequence_give_the_first_observation_of_each_fact(self, flow: View) -> None:
        """Both collections have the digests of the first observations."""
        sent: dict[str, dict[UUID, bytes]] = {}

        @settings(max_examples=60, deadline=None)
        @given(part=parts_of_lives())
        def send_some(part: tuple[str, list[int]]) -> None:
            name, positions = part
            life = new_life(name)
            states = [life[position] for position in positions]
            assert {send(flow, state).status_code for state in states} == {200}
            sent[states[0].uid] = expected(states)
            assert held(flow, "events", states[0].uid) == sent[states[0].uid]
            assert (
                {event.event_id for event in life[-1].events()} <= sent[states[0].uid].keys() <= expected(life).keys()
            )

        send_some()
        assert len(sent) > 20
        for uid, facts in sent.items():
            assert arrived(flow, uid, facts)

    async def test_concurrent_states_give_the_same_facts_with_allowed_differences(self, flow: View) -> None:
        """Any observation can be the first. Both collections have the same observation."""
        sent: list[tuple[list[SourceRequest], list[SourceRequest]]] = []
        async with callers(16) as sending:
            for name in names():
                life = new_life(name)
                states = random.choices(life, k=5) + [life[-1]] * 2
                answers = await sending.post_all(flow.stack.pod_events_url, [state.request() for state in states])
                assert {answer.status for answer in answers} == {200}
                sent.append((life, states))
        for life, states in sent:
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
    """Start a process with a cluster of its own, for a test that kills it."""
    return spawn("pod_events", KUBERNETES_API_SERVER=api.url, PODS_CLUSTER=f"test-{uuid4()}")


def listed(flow: View, function: FunctionProcess) -> dict[str, Any]:
    headers, body = _ping()
    answer = flow.http.post(function.url, headers=headers, content=body)
    assert answer.status_code == 200, answer.text
    run: dict[str, Any] = answer.json()
    return run


def end_lock(flow: View, function: FunctionProcess) -> None:
    """End the lock of a killed listing. Without this, the lock ends before the next ping."""
    name = f"pods of {function.environment['PODS_CLUSTER']}"
    now = flow.database.command("hello")["localTime"].replace(tzinfo=UTC)
    assert flow.database.locks.find_one({"_id": name})["expires_at"] - now < timedelta(minutes=1)
    flow.database.locks.update_one({"_id": name}, {"$set": {"expires_at": now}})


def _ping() -> tuple[dict[str, str], bytes]:
    return ping_headers("pod-events", datetime.now(UTC)), b"{}"


def _requested(api: ApiServer, times: int) -> Callable[[], Awaitable[bool]]:
    async def requested() -> bool:
        return len(api.asked) == times

    return requested


def _deletion_published(flow: View, sent: SourceRequest) -> Callable[[], Awaitable[bool]]:
    """Return a check for `pod.deleted` of this pod."""

    async def published() -> bool:
        return "pod.deleted" in [document["event_type"] for document in documents(flow, "events", sent.uid)]

    return published


@pytest.mark.slow
@pytest.mark.guarantee("R20")
class TestKilled:
    @pytest.mark.parametrize("command", ["find", "insert", "update"])
    async def test_a_process_killed_during_a_delivery_loses_no_fact(
        self, flow: View, function: FunctionProcess, api: ApiServer, command: str
    ) -> None:
        """It is killed while it reads, while it publishes, or before it saves the state. The listing then finds all."""
        sent = new_life("exit_1")[-1]
        api.put(sent.pod)
        async with callers(4) as sending, open_database(settings_of(flow.stack), "tests") as database:
            await sending.post(function.url, new_life("no_status")[0].request())  # opens the connections
            failure: dict[str, Any] = {"failCommands": [command], "blockConnection": True, "blockTimeMS": 3000}
            async with failing(database, "pod_events", **failure):
                waiting = asyncio.create_task(sending.post(function.url, sent.request()))
                await asyncio.sleep(0.7)
                function.kill()
                assert (await waiting).status == 0
        function.start()
        listed(flow, function)
        types = [document["event_type"] for document in documents(flow, "events", sent.uid)]
        assert sorted(types) == sorted(event.event_type for event in sent.events())
        assert listed(flow, function)["published"] == 0

    async def test_a_process_killed_during_a_listing_delays_it_to_the_next_ping(
        self, flow: View, function: FunctionProcess, api: ApiServer
    ) -> None:
        """It is killed while it waits for a page. Its lock ends before the next ping."""
        sent = new_life("exit_1")[-1]
        api.put(sent.pod)
        async with callers(1) as sending:
            listed(flow, function)
            api.put(new_life("no_status")[0].pod)
            api.delay_s = 30.0
            waiting = asyncio.create_task(sending.post(function.url, _ping()))
            await eventually(_requested(api, 2))
            function.kill()
            assert (await waiting).status == 0
        api.delay_s = 0.0
        function.start()
        end_lock(flow, function)
        assert listed(flow, function)["published"] == 1
        assert listed(flow, function)["published"] == 0

    async def test_a_process_killed_after_a_deletion_publishes_it_once(
        self, flow: View, function: FunctionProcess, api: ApiServer
    ) -> None:
        """`pod.deleted` is durable and the state is not saved. The next listing requests the pod again."""
        sent = new_life("exit_1")[-1]
        api.put(sent.pod)
        listed(flow, function)
        api.remove(sent.pod)
        namespace = f"{flow.stack.database}.pod_state"
        failure: dict[str, Any] = {
            "failCommands": ["update"],
            "namespace": namespace,
            "blockConnection": True,
            "blockTimeMS": 3000,
        }
        async with (
            callers(1) as sending,
            open_database(settings_of(flow.stack), "tests") as database,
            failing(database, "pod_events", **failure),
        ):
            waiting = asyncio.create_task(sending.post(function.url, _ping()))
            await eventually(_deletion_published(flow, sent))
            assert "gone_at" not in flow.database.pod_state.find_one({"_id": sent.uid})
            function.kill()
            assert (await waiting).status == 0
        function.start()
        end_lock(flow, function)
        (before,) = _deletions(flow, sent)
        run = listed(flow, function)
        assert run["published"] == 0
        (after,) = _deletions(flow, sent)
        assert after["seq"] == before["seq"]
        assert listed(flow, function)["gone"] == 0

    async def test_a_process_killed_five_times_loses_and_adds_no_fact(
        self, flow: View, function: FunctionProcess, api: ApiServer
    ) -> None:
        """The pods go on meanwhile. The listing finds the facts of deliveries that failed six times."""
        lives = [_renamed(new_life(name), f"{name}-{number}") for number in range(4) for name in names()]
        async with callers(8) as sending:
            living = [asyncio.create_task(_live(sending, function.url, api, part)) for part in _shares(lives, 8)]
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


def _deletions(flow: View, sent: SourceRequest) -> list[Document]:
    return [found for found in documents(flow, "events", sent.uid) if found["event_type"] == "pod.deleted"]


def _renamed(life: list[SourceRequest], name: str) -> list[SourceRequest]:
    for state in life:
        state.pod["metadata"]["name"] = name
    return life


def _shares(lives: list[list[SourceRequest]], number: int) -> list[list[list[SourceRequest]]]:
    return [lives[start::number] for start in range(number)]


async def _live(sending: Callers, url: str, api: ApiServer, lives: list[list[SourceRequest]]) -> None:
    """Play the lives one after the other, and send their states as an ApiServerSource does."""
    for life in lives:
        for state in life:
            if state.deleted:
                api.remove(state.pod)
            else:
                api.put(state.pod)
            for attempt in range(6):
                await asyncio.sleep(0.05 * 2 ** (attempt - 1) if attempt else 0)
                if (await sending.post(url, state.request())).status == 200:
                    state.headers["accepted"] = "yes"
                    break


def _stored(flow: View, life: list[SourceRequest]) -> list[Event]:
    return [Event.from_document(document) for document in documents(flow, "events", life[0].uid)]


def _check_life(flow: View, life: list[SourceRequest]) -> None:
    """Check that the facts of the last state are stored, and only facts of this life."""
    full, stored = first_observed(life), {event.event_id: event for event in _stored(flow, life)}
    assert len(stored) == len(documents(flow, "events", life[0].uid))
    assert stored.keys() <= full.keys()
    for event_id, event in stored.items():
        assert differing(event, full[event_id]) <= MAY_DIFFER[event.event_type] | ALWAYS_MAY_DIFFER | {"cluster"}
    accepted = [state for state in life if "accepted" in state.headers]
    if not life[-1].deleted:
        assert {event.event_id for event in life[-1].events()} <= stored.keys()
    elif accepted:
        assert "pod.deleted" in {event.event_type for event in stored.values()}
    for state in accepted:
        assert {event.event_id for event in state.events()} <= stored.keys()
