"""Group commit: the groups, the results of the callers, and the errors of a full or closing queue."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from twofold.errors import Unavailable
from twofold.write.group_commit import GroupCommit

pytestmark = pytest.mark.guarantee("G1", "R7")

Commit = GroupCommit[int, int]


class Database:
    """A write that records its groups and waits for `gate`. A result is ten times the item."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.under_way = 0
        self.most_under_way = 0

    async def write(self, items: list[int]) -> Sequence[int]:
        self.groups.append(items)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.error:
            raise self.error
        return [item * 10 for item in items]


@pytest.fixture
async def database() -> Database:
    return Database()


@pytest.fixture
async def commit(database: Database) -> Commit:
    return GroupCommit(database.write, max_items=5, wait_s=0.0, capacity=20)


async def until_blocked() -> None:
    """Run every task until it waits for the database."""
    for _ in range(20):
        await asyncio.sleep(0)


def start(submission: Coroutine[Any, Any, Sequence[int]]) -> asyncio.Task[Sequence[int]]:
    return asyncio.create_task(submission)


async def test_a_lone_caller_is_written_alone(database: Database, commit: Commit) -> None:
    assert await commit.submit([1]) == [10]
    assert database.groups == [[1]]


async def test_callers_at_the_same_time_share_a_write(database: Database, commit: Commit) -> None:
    results = await asyncio.gather(*(commit.submit([number]) for number in range(5)))

    assert results == [[0], [10], [20], [30], [40]]
    assert database.groups == [[0, 1, 2, 3, 4]]


async def test_callers_during_a_write_form_the_next_group(database: Database, commit: Commit) -> None:
    """So a group grows with the load."""
    database.gate.clear()
    first = start(commit.submit([1]))
    await until_blocked()
    later = [start(commit.submit([number])) for number in (2, 3, 4)]
    await until_blocked()
    assert database.groups == [[1]]

    database.gate.set()
    await asyncio.gather(first, *later)

    assert database.groups == [[1], [2, 3, 4]]


async def test_a_caller_within_the_wait_joins_the_group(database: Database) -> None:
    commit: Commit = GroupCommit(database.write, max_items=5, wait_s=0.05, capacity=20)
    first = start(commit.submit([1]))
    await asyncio.sleep(0.001)

    await asyncio.gather(first, commit.submit([2]))

    assert database.groups == [[1, 2]]


async def test_a_full_group_does_not_wait(database: Database) -> None:
    commit: Commit = GroupCommit(database.write, max_items=2, wait_s=60.0, capacity=20)

    async with asyncio.timeout(5):
        await asyncio.gather(commit.submit([1]), commit.submit([2]))

    assert database.groups == [[1, 2]]


async def test_no_group_exceeds_the_maximum(database: Database, commit: Commit) -> None:
    results = await asyncio.gather(*(commit.submit([number]) for number in range(12)))

    assert [len(group) for group in database.groups] == [5, 5, 2]
    assert results == [[number * 10] for number in range(12)]


async def test_the_items_of_a_caller_stay_together_and_in_order(database: Database, commit: Commit) -> None:
    """A batch that exceeds the rest of a group goes into the next group as a whole."""
    results = await asyncio.gather(*map(commit.submit, [[1, 2, 3], [4, 5, 6], [7]]))

    assert results == [[10, 20, 30], [40, 50, 60], [70]]
    assert database.groups == [[1, 2, 3], [4, 5, 6, 7]]


async def test_a_batch_larger_than_a_group_is_a_group_of_its_own(database: Database, commit: Commit) -> None:
    results = await asyncio.gather(commit.submit([0]), commit.submit(list(range(1, 9))), commit.submit([9]))

    assert [len(result) for result in results] == [1, 8, 1]
    assert database.groups == [[0], list(range(1, 9)), [9]]


async def test_an_error_goes_to_every_caller_of_the_group_and_to_no_other_caller(
    database: Database, commit: Commit
) -> None:
    """No caller is acknowledged for a write that may not be durable."""
    database.error = Unavailable("not durable")
    failed = await asyncio.gather(*(commit.submit([number]) for number in range(3)), return_exceptions=True)
    database.error = None

    assert failed == [database_error := failed[0]] * 3
    assert isinstance(database_error, Unavailable)
    assert await commit.submit([9]) == [90]


async def test_an_unexpected_error_reaches_the_callers_too(database: Database, commit: Commit) -> None:
    """A caller without an answer would wait for ever."""
    database.error = ZeroDivisionError()

    with pytest.raises(ZeroDivisionError):
        await commit.submit([1])


async def test_a_full_queue_refuses_a_caller_and_keeps_its_items(database: Database, commit: Commit) -> None:
    database.gate.clear()
    writing = start(commit.submit([0]))
    await until_blocked()
    waiting = [start(commit.submit([number])) for number in range(1, 21)]
    await until_blocked()

    with pytest.raises(Unavailable, match="too many"):
        await commit.submit([99])

    database.gate.set()
    assert [*await asyncio.gather(writing, *waiting)] == [[number * 10] for number in range(21)]
    assert 99 not in [item for group in database.groups for item in group]


def in_bytes(database: Database, capacity_bytes: int) -> Commit:
    """Return a queue with items that are their own sizes in bytes."""
    return GroupCommit(
        database.write,
        max_items=2,
        wait_s=0.0,
        capacity=20,
        size_of=lambda number: number,
        capacity_bytes=capacity_bytes,
    )


async def test_bytes_in_the_queue_and_in_writes_are_bounded_together(database: Database) -> None:
    """Events of a megabyte could exceed the memory long before their number is large."""
    commit = in_bytes(database, 10)
    database.gate.clear()
    writing = start(commit.submit([6]))
    await until_blocked()
    with pytest.raises(Unavailable, match="too many bytes"):
        await asyncio.wait_for(commit.submit([2, 3]), 5)
    waiting = start(commit.submit([4]))
    await until_blocked()
    with pytest.raises(Unavailable, match="too many bytes"):
        await asyncio.wait_for(commit.submit([1]), 5)

    database.gate.set()
    assert [*await asyncio.gather(writing, waiting)] == [[60], [40]]
    assert await commit.submit([10]) == [100]


async def test_a_caller_larger_than_the_capacity_is_accepted_alone(database: Database) -> None:
    """A refusal would repeat for ever."""
    commit = in_bytes(database, 10)

    assert await commit.submit([11]) == [110]
    assert await commit.submit([12]) == [120]


async def test_bytes_of_failed_and_cancelled_callers_are_released(database: Database) -> None:
    commit = in_bytes(database, 10)
    database.gate.clear()
    callers = [start(commit.submit([number])) for number in (1, 2, 3, 4)]
    await until_blocked()
    callers[3].cancel()
    database.error = Unavailable("no primary")
    database.gate.set()
    await asyncio.gather(*callers, return_exceptions=True)
    database.error = None
    database.gate.clear()

    small = start(commit.submit([1]))
    await until_blocked()
    full = start(commit.submit([9]))
    await until_blocked()
    database.gate.set()

    assert [*await asyncio.gather(small, full)] == [[10], [90]]


async def test_a_batch_that_does_not_fit_is_refused_as_a_whole(database: Database, commit: Commit) -> None:
    with pytest.raises(Unavailable):
        await commit.submit(list(range(21)))

    assert database.groups == []
    assert await commit.submit([1]) == [10]


async def test_every_write_releases_its_capacity(database: Database, commit: Commit) -> None:
    """Written and failed items no longer count against the capacity."""
    for error in (None, Unavailable("no primary")):
        database.error = error
        await asyncio.gather(*(commit.submit([number]) for number in range(20)), return_exceptions=True)

    database.error = None
    results = await asyncio.gather(*(commit.submit([number]) for number in range(20)))
    assert results == [[number * 10] for number in range(20)]


async def test_callers_behind_a_failed_write_get_its_error(database: Database, commit: Commit) -> None:
    """Without the database, a group of their own would wait for the same time-out again."""
    database.gate.clear()
    callers = [start(commit.submit([number])) for number in range(12)]
    await until_blocked()
    database.error = Unavailable("no primary")
    database.gate.set()

    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(database.groups) == 1


async def test_yielding_lets_a_due_write_begin(database: Database) -> None:
    """A caller that is about to make items lets waiting callers go first."""
    commit: Commit = GroupCommit(database.write, max_items=64, wait_s=0.0, capacity=100, yield_threshold=8)
    callers = [start(commit.submit([number])) for number in range(8)]
    await asyncio.sleep(0)
    assert database.groups == []

    await commit.yield_to_pending_write()
    assert database.groups == [list(range(8))]
    await asyncio.gather(*callers)


async def test_close_writes_and_answers_every_accepted_caller(database: Database, commit: Commit) -> None:
    database.gate.clear()
    taken = [start(commit.submit([number])) for number in range(12)]
    await until_blocked()
    closing = asyncio.ensure_future(commit.close())
    await until_blocked()
    assert not closing.done()

    database.gate.set()
    await closing

    assert sorted(item for group in database.groups for item in group) == list(range(12))
    assert await asyncio.gather(*taken) == [[number * 10] for number in range(12)]


async def test_a_closed_queue_refuses_callers(database: Database, commit: Commit) -> None:
    await commit.close()

    with pytest.raises(Unavailable, match="shutting down"):
        await commit.submit([1])
    assert database.groups == []


async def test_close_may_be_called_twice(database: Database, commit: Commit) -> None:
    await commit.submit([1])
    await commit.close()
    await commit.close()


async def test_a_cancelled_caller_does_not_harm_other_callers(database: Database, commit: Commit) -> None:
    """Its items are written, because they may be in a group already. A retry finds them."""
    database.gate.clear()
    one, gone, other = (start(commit.submit([number])) for number in (1, 2, 3))
    await until_blocked()
    gone.cancel()
    database.gate.set()

    assert await one == [10]
    assert await other == [30]
    assert gone.cancelled()
    assert await commit.submit([4]) == [40]


async def test_a_cancelled_caller_does_not_hide_an_error_from_other_callers(database: Database, commit: Commit) -> None:
    database.gate.clear()
    database.error = Unavailable("no primary")
    gone, other = start(commit.submit([1])), start(commit.submit([2]))
    await until_blocked()
    gone.cancel()
    database.gate.set()

    with pytest.raises(Unavailable):
        await other


@pytest.mark.parametrize("max_writes", [1, 3])
async def test_no_more_than_the_maximum_of_writes_is_under_way(database: Database, max_writes: int) -> None:
    commit: Commit = GroupCommit(database.write, max_items=2, wait_s=0.0, capacity=100, max_writes=max_writes)
    database.gate.clear()
    callers = [start(commit.submit([number])) for number in range(20)]
    await until_blocked()
    assert database.under_way == max_writes

    database.gate.set()

    assert await asyncio.gather(*callers) == [[number * 10] for number in range(20)]
    assert database.most_under_way == max_writes


async def test_results_reach_their_own_callers_when_writes_end_in_another_order() -> None:
    gates = {number: asyncio.Event() for number in range(3)}

    async def write(items: list[int]) -> Sequence[int]:
        await gates[items[0]].wait()
        return [item * 10 for item in items]

    commit: Commit = GroupCommit(write, max_items=1, wait_s=0.0, capacity=10, max_writes=3)
    callers = [start(commit.submit([number])) for number in range(3)]
    for number in (2, 0, 1):
        await until_blocked()
        gates[number].set()
        assert await callers[number] == [number * 10]


async def test_a_failed_write_does_not_affect_a_write_under_way() -> None:
    async def write(items: list[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        if items == [1]:
            raise Unavailable("no primary")
        return items

    commit: Commit = GroupCommit(write, max_items=1, wait_s=0.0, capacity=10, max_writes=3)
    outcomes = await asyncio.gather(*(commit.submit([number]) for number in range(3)), return_exceptions=True)

    assert outcomes[::2] == [[0], [2]]
    assert isinstance(outcomes[1], Unavailable)


@pytest.mark.parametrize("callers", [1, 7, 500])
async def test_the_number_of_writes_is_far_below_the_number_of_callers(database: Database, callers: int) -> None:
    commit: Commit = GroupCommit(database.write, max_items=50, wait_s=0.001, capacity=1000)

    await asyncio.gather(*(commit.submit([number]) for number in range(callers)))

    assert len(database.groups) <= callers // 50 + 1
