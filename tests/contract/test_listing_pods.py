"""The listing in one process, with a real MongoDB: its time, its cost, its logs and its dead letters."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple
from uuid import uuid4

import pytest

from functions.pod_events.cluster import connect
from functions.pod_events.listing import Listing, ListingRun
from functions.pod_events.watching import PodWatcher
from tests.api_server import ApiServer, api_server
from tests.helpers import Commands, eventually, listened
from tests.pods import IDENTITY, SourceRequest, new_life, pod_watcher
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
    """A watcher and its publisher, their database, and the commands sent there."""

    watcher: PodWatcher
    publisher: Publisher
    database: Database
    commands: Commands
    settings: Settings

    async def handle(self, headers: Mapping[str, str], body: bytes) -> None:
        """Handle a delivery of an ApiServerSource."""
        await self.watcher.handle([(name.encode(), value.encode()) for name, value in headers.items()], body)

    async def run(self, seconds: Callable[[], float] = lambda: 0.0) -> ListingRun:
        """List once, with this clock."""
        cluster = IDENTITY.cluster
        connection = partial(connect, self.settings)
        listing = Listing(
            self.database, self.publisher, self.watcher, cluster, connection, budget_s=BUDGET_S, seconds=seconds
        )
        run = await listing.run()
        assert run is not None
        return run


@pytest.fixture
async def lister(settings: Settings, sender: Sender, api: ApiServer) -> AsyncIterator[Lister]:
    own = settings.model_copy(update={"kubernetes_api_server": api.url, "pods_page": PAGE, "max_record_bytes": 6000})
    async with listened(own) as (database, commands):
        publisher = Publisher(EventRepository(database), EventStore(database), sender, own)
        yield Lister(pod_watcher(publisher, database), publisher, database, commands, own)
        await publisher.close()


def some_pods(api: ApiServer, number: int) -> list[SourceRequest]:
    """Add new pods to the API server."""
    pods = [new_life("exit_1")[-1] for _ in range(number)]
    for sent in pods:
        sent.pod["metadata"]["name"] = f"pod-{uuid4()}"
        api.put(sent.pod)
    return pods


def steps(step_s: float) -> Callable[[], float]:
    """Return a clock that moves on by `step_s` seconds at every look."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += step_s
        return now

    return look


async def types_of(database: Database, sent: SourceRequest) -> set[str]:
    return {document["event_type"] async for document in database["events"].find({"payload.pod_uid": sent.uid})}


class TestTime:
    async def test_a_run_without_enough_time_warns_and_deletes_nothing(
        self, lister: Lister, api: ApiServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A pod that was not listed may exist. The next run has enough time."""
        (going,) = some_pods(api, 1)
        await lister.run()
        api.remove(going.pod)
        some_pods(api, 3 * PAGE)
        stopped = await lister.run(steps(6.0))
        assert (stopped.listed, stopped.gone, stopped.unfinished) == (2 * PAGE, 0, True)
        assert "did not end within 10 s, and requested no missing pods" in caplog.text
        finished = await lister.run()
        assert (finished.listed, finished.gone, finished.unfinished) == (3 * PAGE, 1, False)
        assert "pod.deleted" in await types_of(lister.database, going)

    async def test_the_next_run_requests_the_remaining_missing_pods(self, lister: Lister, api: ApiServer) -> None:
        pods = some_pods(api, 3)
        await lister.run()
        for sent in pods:
            api.remove(sent.pod)
        first = await lister.run(steps(4.0))
        assert (first.gone, first.unfinished) == (2, True)
        second = await lister.run()
        assert (second.gone, second.unfinished) == (1, False)

    async def test_a_run_that_lost_its_lock_stops(self, lister: Lister, api: ApiServer) -> None:
        """It took so long that another process got the lock."""
        some_pods(api, 3 * PAGE)
        api.delay_s = 30.0
        running = asyncio.create_task(lister.run())

        async def requested() -> bool:
            return bool(api.asked)

        await eventually(requested)
        await lister.database["locks"].update_one({}, {"$set": {"holder": uuid4()}})
        api.delay_s = 0.0
        with pytest.raises(Unavailable, match="another process holds the lock"):
            await running
        assert len(api.asked) == 1


class TestSelector:
    async def test_a_pod_outside_a_narrower_selector_is_not_deleted(self, lister: Lister, api: ApiServer) -> None:
        selected, unselected = some_pods(api, 2)
        selected.pod["metadata"]["labels"]["tier"] = "front"
        await lister.run()
        narrowed = lister._replace(settings=lister.settings.model_copy(update={"pods_selector": "tier=front"}))
        run = await narrowed.run()
        assert (run.listed, run.unlisted, run.gone) == (1, 1, 0)
        assert "pod.deleted" not in await types_of(lister.database, unselected)


class TestLogs:
    async def test_a_run_logs_its_result(
        self, lister: Lister, api: ApiServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        some_pods(api, 3)
        run = await lister.run()
        (record,) = [record for record in caplog.records if record.msg == "pods listed"]
        assert (vars(record)["listed"], vars(record)["published"]) == (3, run.published)

    async def test_a_missing_permission_for_get_gives_one_warning_and_deletes_nothing(
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


class TestRejected:
    @pytest.mark.guarantee("G4")
    async def test_a_pod_with_a_too_large_event_is_kept_as_listed_and_the_rest_is_published(
        self, lister: Lister, api: ApiServer
    ) -> None:
        large, sound = some_pods(api, PAGE)
        large.pod["spec"]["containers"] = [{"name": "main", "image": "x" * 10_000}]
        run = await lister.run()
        assert (run.listed, run.unreadable) == (2, 1)
        assert await types_of(lister.database, sound) == {event.event_type for event in sound.events()}
        found = [dead_letter async for dead_letter in lister.database["dead_letters"].find()]
        assert [(kept["reason"], json.loads(kept["body"])) for kept in found] == [("too-large", large.pod)]

    @pytest.mark.guarantee("G4")
    async def test_an_unreadable_pod_is_one_dead_letter_from_deliveries_and_listings(
        self, lister: Lister, api: ApiServer
    ) -> None:
        """Every delivery has a new id, and the listing finds the pod every minute."""
        (unreadable,) = some_pods(api, 1)
        unreadable.pod["status"]["startTime"] = "never"
        for _ in range(2):
            await lister.handle(*unreadable.request())
        for _ in range(2):
            assert (await lister.run()).unreadable == 1
        found = [dead_letter async for dead_letter in lister.database["dead_letters"].find()]
        assert [dead_letter["times"] for dead_letter in found] == [4]
        unreadable.pod["metadata"]["resourceVersion"] = "another state"
        await lister.run()
        assert await lister.database["dead_letters"].count_documents({}) == 2

    @pytest.mark.guarantee("G4")
    async def test_events_of_foreign_types_are_separate_dead_letters(self, lister: Lister) -> None:
        """Their bodies are equal, and their types are different."""
        for type_ in ("order.created", "order.cancelled"):
            headers = new_life("exit_1")[0].request()[0] | {"ce-type": type_}
            await lister.handle(headers, b"{}")
        assert await lister.database["dead_letters"].count_documents({}) == 2


class TestIgnored:
    @pytest.mark.parametrize("listed", [True, False])
    async def test_the_deletion_of_a_pod_that_became_ignored_gives_no_event(
        self, lister: Lister, api: ApiServer, listed: bool
    ) -> None:
        """The pod was known before it got the label. No run requests it after its deletion."""
        (sent,) = some_pods(api, 1)
        await lister.run()
        sent.pod["metadata"]["labels"]["twofold.dev/ignore"] = "true"
        if listed:
            assert (await lister.run()).ignored == 1
        else:
            await lister.handle(*sent.request())
        api.remove(sent.pod)
        run = await lister.run()
        assert (run.gone, run.unlisted) == (0, 0)
        assert not any(sent.pod["metadata"]["name"] in path for path in api.asked)
        assert "pod.deleted" not in await types_of(lister.database, sent)


class TestCost:
    async def test_for_listed_pods_only_uid_and_digest_are_read(self, lister: Lister, api: ApiServer) -> None:
        """The stored state has a whole event, which a listed pod does not need."""
        some_pods(api, 3)
        await lister.run()
        before = len(lister.commands.sent)
        await lister.run()
        finds = [sent.command for sent in lister.commands.sent[before:] if sent.command_name == "find"]
        read = [find["projection"] for find in finds if find["find"] == "pod_state"]
        assert read.count({"facts": 1}) == 2
        assert read.count({"_id": 1}) == len(read) - 2 > 0

    async def test_a_page_without_watched_pods_costs_no_read(self, lister: Lister) -> None:
        before = len(lister.commands.sent)
        assert await lister.watcher.publish([]) == 0
        assert len(lister.commands.sent) == before
