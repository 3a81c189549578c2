"""What `pod_events` remembers of the pods that it has seen."""

from datetime import timedelta

import pytest

from functions.pod_events.pod_state import FIRST_WAIT, LONGEST_WAIT, LastPodState, PodStates
from tests.pods import Sent, new_life
from twofold.mongo.client import Database
from twofold.mongo.safe_time import server_time

pytestmark = pytest.mark.guarantee("G6")


def seen(sent: Sent, facts: bytes = b"facts", *, deleted: bool = False) -> LastPodState:
    meta = sent.pod["metadata"]
    return LastPodState("here", sent.uid, meta["namespace"], meta["name"], facts, sent.events()[0], deleted)


@pytest.fixture
def sent() -> Sent:
    return new_life("exit_1")[-1]


async def living(pods: PodStates, database: Database, later: timedelta = timedelta(0)) -> list[LastPodState]:
    uids = await pods.living("here", "", await server_time(database) + later, limit=10)
    return await pods.read(uids)


async def test_it_is_remembered_as_it_was_seen_last(database: Database, sent: Sent) -> None:
    pods = PodStates(database)
    await pods.note([seen(sent, b"earlier")])
    await pods.note([seen(sent)])
    assert await pods.facts([sent.uid, "another"]) == {sent.uid: b"facts"}
    assert await living(pods, database) == [seen(sent)]


async def test_one_that_was_deleted_stays_so_whatever_comes_late(database: Database, sent: Sent) -> None:
    pods = PodStates(database)
    await pods.note([seen(sent, deleted=True)])
    await pods.note([seen(sent, b"an earlier state")])
    assert await living(pods, database) == []


@pytest.mark.guarantee("R18")
async def test_the_wait_for_one_that_is_there_but_not_listed_grows(database: Database, sent: Sent) -> None:
    """Each is twice the one before, up to an hour: a narrowed selector does not cost a request a minute for ever."""
    pods = PodStates(database)
    await pods.note([seen(sent)])
    waits = []
    for _ in range(9):
        await pods.postpone(sent.uid)
        now = await server_time(database)
        document = await database["pod_state"].find_one({"_id": sent.uid})
        assert document is not None
        waits.append(round((document["next_look"] - now) / timedelta(minutes=1)))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert LONGEST_WAIT == 60 * FIRST_WAIT


async def test_while_it_waits_it_is_not_looked_for(database: Database, sent: Sent) -> None:
    pods = PodStates(database)
    await pods.note([seen(sent)])
    await pods.postpone(sent.uid)
    assert await living(pods, database) == []
    assert await living(pods, database, FIRST_WAIT + timedelta(seconds=5)) == [seen(sent)]


async def test_seen_again_it_waits_no_more(database: Database, sent: Sent) -> None:
    pods = PodStates(database)
    await pods.note([seen(sent)])
    await pods.postpone(sent.uid)
    await pods.note([seen(sent)])
    assert await living(pods, database) == [seen(sent)]


async def test_they_are_gone_through_in_pieces(database: Database) -> None:
    pods = PodStates(database)
    some = [new_life("exit_1")[-1] for _ in range(5)]
    await pods.note([seen(one) for one in some])
    now, found, after = await server_time(database), [], ""
    while page := await pods.living("here", after, now, limit=2):
        found += page
        after = found[-1]
    assert found == sorted(one.uid for one in some)


async def test_pods_of_another_cluster_are_not_looked_for(database: Database, sent: Sent) -> None:
    """Two clusters may share one Twofold, and neither knows the other's pods."""
    pods = PodStates(database)
    await pods.note([seen(sent)])
    assert await pods.living("there", "", await server_time(database), limit=10) == []
