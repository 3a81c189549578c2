"""A listing in one process: what it takes to a real MongoDB, what it says, and when it stops."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple
from uuid import uuid4

import pytest

from functions.pod_events.cluster import connect
from functions.pod_events.listing import Listing, Run
from functions.pod_events.watching import Watcher
from tests.api_server import ApiServer, api_server
from tests.helpers import Commands, eventually, listened
from tests.pods import IDENTITY, Sent, new_life, watcher
from twofold.errors import Unavailable
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.write.publisher import Publisher

pytestmark = pytest.mark.guarantee("G6")

PAGE = 2
BUDGET_S = 10.0


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as served:
        yield served


class Lister(NamedTuple):
    """What lists, its database, and the commands that it sends there."""

    watcher: Watcher
    publisher: Publisher
    database: Database
    commands: Commands
    settings: Settings

    async def take(self, headers: Mapping[str, str], body: bytes) -> None:
        """What an ApiServerSource sends."""
        await self.watcher.take([(name.encode(), value.encode()) for name, value in headers.items()], body)

    async def run(self, seconds: Callable[[], float] = lambda: 0.0) -> Run:
        """List once, by that clock."""
        cluster = IDENTITY.cluster
        to_it = partial(connect, self.settings)
        listing = Listing(
            self.database, self.publisher, self.watcher, cluster, to_it, budget_s=BUDGET_S, seconds=seconds
        )
        run = await listing.run()
        assert run is not None
        return run


@pytest.fixture
async def lister(settings: Settings, sender: Sender, api: ApiServer) -> AsyncIterator[Lister]:
    own = settings.model_copy(update={"kubernetes_api_server": api.url, "pods_page": PAGE, "max_record_bytes": 6000})
    async with listened(own) as (database, commands):
        publisher = Publisher(EventRepository(database), EventStore(database), sender, own)
        yield Lister(watcher(publisher, database), publisher, database, commands, own)
        await publisher.close()


def some_pods(api: ApiServer, number: int) -> list[Sent]:
    """That many new pods, which the API server has."""
    pods = [new_life("exit_1")[-1] for _ in range(number)]
    for sent in pods:
        sent.pod["metadata"]["name"] = f"pod-{uuid4()}"
        api.put(sent.pod)
    return pods


def steps(each: float) -> Callable[[], float]:
    """A clock that goes on by `each` seconds whenever somebody looks at it."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += each
        return now

    return look


async def types_of(database: Database, sent: Sent) -> set[str]:
    return {document["event_type"] async for document in database["events"].find({"payload.pod_uid": sent.uid})}


class TestTime:
    async def test_when_its_time_is_over_it_stops_says_so_and_takes_nobody_for_gone(
        self, lister: Lister, api: ApiServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What it has not listed it knows nothing of. The next run has time for all."""
        (going,) = some_pods(api, 1)
        await lister.run()
        api.remove(going.pod)
        some_pods(api, 3 * PAGE)
        stopped = await lister.run(steps(each=6.0))
        assert (stopped.listed, stopped.gone, stopped.unfinished) == (2 * PAGE, 0, True)
        assert "takes more than 10 s: none was looked for" in caplog.text
        finished = await lister.run()
        assert (finished.listed, finished.gone, finished.unfinished) == (3 * PAGE, 1, False)
        assert "pod.deleted" in await types_of(lister.database, going)

    async def test_whoever_was_not_asked_for_in_time_is_in_the_next_run(self, lister: Lister, api: ApiServer) -> None:
        pods = some_pods(api, 3)
        await lister.run()
        for sent in pods:
            api.remove(sent.pod)
        first = await lister.run(steps(each=4.0))
        assert (first.gone, first.unfinished) == (2, True)
        second = await lister.run()
        assert (second.gone, second.unfinished) == (1, False)

    async def test_one_that_lost_its_lock_stops(self, lister: Lister, api: ApiServer) -> None:
        """It took so long that another was let in."""
        some_pods(api, 3 * PAGE)
        api.delay_s = 30.0
        running = asyncio.create_task(lister.run())

        async def begun() -> bool:
            return bool(api.asked)

        await eventually(begun)
        await lister.database["locks"].update_one({}, {"$set": {"holder": uuid4()}})
        api.delay_s = 0.0
        with pytest.raises(Unavailable, match="another's"):
            await running
        assert len(api.asked) == 1


class TestChosen:
    async def test_a_pod_that_a_narrowed_selector_leaves_out_is_not_gone(self, lister: Lister, api: ApiServer) -> None:
        chosen, left_out = some_pods(api, 2)
        chosen.pod["metadata"]["labels"]["tier"] = "front"
        await lister.run()
        narrowed = lister._replace(settings=lister.settings.model_copy(update={"pods_selector": "tier=front"}))
        run = await narrowed.run()
        assert (run.listed, run.unlisted, run.gone) == (1, 1, 0)
        assert "pod.deleted" not in await types_of(lister.database, left_out)


class TestSaid:
    async def test_what_a_run_did_is_logged(
        self, lister: Lister, api: ApiServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        some_pods(api, 3)
        run = await lister.run()
        (line,) = [record for record in caplog.records if record.msg == "pods listed"]
        assert (vars(line)["listed"], vars(line)["published"]) == (3, run.published)

    async def test_a_missing_right_to_get_is_warned_of_once_a_run_and_deletes_nothing(
        self, lister: Lister, api: ApiServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        pods = some_pods(api, 3)
        await lister.run()
        for sent in pods:
            api.remove(sent.pod)
        api.forbidden = {"get"}
        run = await lister.run()
        assert (run.forbidden, run.unlisted, run.gone) == (3, 0, 0)
        assert caplog.text.count("needs the verb get on pods") == 1
        assert "pod.deleted" not in await types_of(lister.database, pods[0])


class TestRefused:
    @pytest.mark.guarantee("G4")
    async def test_a_pod_whose_event_is_too_large_is_kept_as_it_was_listed_and_stops_no_other(
        self, lister: Lister, api: ApiServer
    ) -> None:
        large, sound = some_pods(api, PAGE)
        large.pod["spec"]["containers"] = [{"name": "main", "image": "x" * 10_000}]
        run = await lister.run()
        assert (run.listed, run.unreadable) == (2, 1)
        assert await types_of(lister.database, sound) == {event.event_type for event in sound.events()}
        letters = [letter async for letter in lister.database["dead_letters"].find()]
        assert [(letter["reason"], json.loads(letter["body"])) for letter in letters] == [("too-large", large.pod)]

    @pytest.mark.guarantee("G4")
    async def test_the_same_unreadable_pod_is_one_letter_however_it_comes(self, lister: Lister, api: ApiServer) -> None:
        """The source gives each delivery an id of its own, and the listing brings the pod every minute."""
        (unreadable,) = some_pods(api, 1)
        unreadable.pod["status"]["startTime"] = "never"
        for _ in range(2):
            await lister.take(*unreadable.request())
        for _ in range(2):
            assert (await lister.run()).unreadable == 1
        letters = [letter async for letter in lister.database["dead_letters"].find()]
        assert [letter["times"] for letter in letters] == [4]
        unreadable.pod["metadata"]["resourceVersion"] = "another state"
        await lister.run()
        assert await lister.database["dead_letters"].count_documents({}) == 2

    @pytest.mark.guarantee("G4")
    async def test_other_events_without_data_are_letters_of_their_own(self, lister: Lister) -> None:
        """What they say is in their attributes alone."""
        for type_ in ("order.created", "order.cancelled"):
            headers = new_life("exit_1")[0].request()[0] | {"ce-type": type_}
            await lister.take(headers, b"{}")
        assert await lister.database["dead_letters"].count_documents({}) == 2


class TestIgnored:
    @pytest.mark.parametrize("listed", [True, False])
    async def test_a_pod_that_came_to_be_ignored_goes_without_an_event(
        self, lister: Lister, api: ApiServer, listed: bool
    ) -> None:
        """It was seen before it had the label. Nobody asks for it when it is gone."""
        (sent,) = some_pods(api, 1)
        await lister.run()
        sent.pod["metadata"]["labels"]["twofold.dev/ignore"] = "true"
        if listed:
            assert (await lister.run()).ignored == 1
        else:
            await lister.take(*sent.request())
        api.remove(sent.pod)
        run = await lister.run()
        assert (run.gone, run.unlisted) == (0, 0)
        assert not any(sent.pod["metadata"]["name"] in path for path in api.asked)
        assert "pod.deleted" not in await types_of(lister.database, sent)


class TestCost:
    async def test_who_is_listed_is_not_read_from_what_was_seen(self, lister: Lister, api: ApiServer) -> None:
        """The memory of a pod has a whole event in it: its uid, and what tells its facts from others, are enough."""
        some_pods(api, 3)
        await lister.run()
        before = len(lister.commands.sent)
        await lister.run()
        finds = [sent.command for sent in lister.commands.sent[before:] if sent.command_name == "find"]
        read = [find["projection"] for find in finds if find["find"] == "pod_state"]
        assert read.count({"facts": 1}) == 2
        assert read.count({"_id": 1}) == len(read) - 2 > 0

    async def test_a_page_without_a_pod_that_is_watched_costs_no_read(self, lister: Lister) -> None:
        before = len(lister.commands.sent)
        assert await lister.watcher.observe([]) == 0
        assert len(lister.commands.sent) == before
