"""The collection `pod_state`: the last observed state of each pod."""

from datetime import timedelta

import pytest

from functions.pod_events.pod_state import FIRST_WAIT, LONGEST_WAIT, LastPodState, PodStates
from tests.pods import SourceRequest, new_life
from twofold.mongo.client import Database
from twofold.mongo.safe_time import server_time

pytestmark = pytest.mark.guarantee("G6")


def last_state(sent: SourceRequest, facts_digest: bytes = b"facts", *, deleted: bool = False) -> LastPodState:
    meta = sent.pod["metadata"]
    return LastPodState("here", sent.uid, meta["namespace"], meta["name"], facts_digest, sent.events()[0], deleted)


@pytest.fixture
def sent() -> SourceRequest:
    return new_life("exit_1")[-1]


async def living(pods: PodStates, database: Database, later: timedelta = timedelta(0)) -> list[LastPodState]:
    uids = await pods.living("here", "", await server_time(database) + later, limit=10)
    return await pods.load(uids)


async def test_the_last_saved_state_counts(database: Database, sent: SourceRequest) -> None:
    pods = PodStates(database)
    await pods.save([last_state(sent, b"earlier")])
    await pods.save([last_state(sent)])
    assert await pods.facts_digests([sent.uid, "another"]) == {sent.uid: b"facts"}
    assert await living(pods, database) == [last_state(sent)]


async def test_a_late_earlier_state_does_not_revive_a_deleted_pod(database: Database, sent: SourceRequest) -> None:
    pods = PodStates(database)
    await pods.save([last_state(sent, deleted=True)])
    await pods.save([last_state(sent, b"an earlier state")])
    assert await living(pods, database) == []


@pytest.mark.guarantee("R18")
async def test_the_wait_for_an_unlisted_pod_doubles_up_to_an_hour(database: Database, sent: SourceRequest) -> None:
    """So a narrower selector does not cost a request for every such pod in every minute."""
    pods = PodStates(database)
    await pods.save([last_state(sent)])
    waits = []
    for _ in range(9):
        await pods.postpone(sent.uid)
        now = await server_time(database)
        document = await database["pod_state"].find_one({"_id": sent.uid})
        assert document is not None
        waits.append(round((document["next_look"] - now) / timedelta(minutes=1)))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert LONGEST_WAIT == 60 * FIRST_WAIT


async def test_a_postponed_pod_is_not_requested_until_its_wait_is_over(database: Database, sent: SourceRequest) -> None:
    pods = PodStates(database)
    await pods.save([last_state(sent)])
    await pods.postpone(sent.uid)
    assert await living(pods, database) == []
    assert await living(pods, database, FIRST_WAIT + timedelta(seconds=5)) == [last_state(sent)]


async def test_a_new_state_ends_the_wait(database: Database, sent: SourceRequest) -> None:
    pods = PodStates(database)
    await pods.save([last_state(sent)])
    await pods.postpone(sent.uid)
    await pods.save([last_state(sent)])
    assert await living(pods, database) == [last_state(sent)]


async def test_living_pods_come_in_chunks(database: Database) -> None:
    pods = PodStates(database)
    requests = [new_life("exit_1")[-1] for _ in range(5)]
    await pods.save([last_state(sent) for sent in requests])
    now, found, after = await server_time(database), [], ""
    while chunk := await pods.living("here", after, now, limit=2):
        found += chunk
        after = found[-1]
    assert found == sorted(sent.uid for sent in requests)


async def test_pods_of_another_cluster_are_not_requested(database: Database, sent: SourceRequest) -> None:
    """Two clusters may share a Twofold. Their API servers have different pods."""
    pods = PodStates(database)
    await pods.save([last_state(sent)])
    assert await pods.living("there", "", await server_time(database), limit=10) == []
