"""The lock between processes, by the clock of a real server."""

import asyncio
from datetime import timedelta

import pytest

from twofold.errors import Unavailable
from twofold.mongo.client import Database
from twofold.mongo.lock import hold_lock

MINUTE = timedelta(minutes=1)


async def taken(database: Database, longest: timedelta = MINUTE) -> bool:
    async with hold_lock(database, "work", longest) as mine:
        return mine is not None


async def test_the_lock_has_only_one_holder(database: Database) -> None:
    async with hold_lock(database, "work", MINUTE) as mine:
        assert mine
        assert not await taken(database)


async def test_only_one_of_many_processes_gets_the_lock(database: Database) -> None:
    held, all_asked = 0, asyncio.Event()

    async def ask() -> None:
        nonlocal held
        async with hold_lock(database, "work", MINUTE) as mine:
            held += mine is not None
            if mine:
                await all_asked.wait()

    asking = [asyncio.create_task(ask()) for _ in range(20)]
    await asyncio.wait(asking, timeout=20.0, return_when="FIRST_COMPLETED")
    while sum(task.done() for task in asking) < 19:
        await asyncio.wait(asking, timeout=0.1)
    all_asked.set()
    await asyncio.gather(*asking)
    assert held == 1


async def test_locks_with_different_names_are_independent(database: Database) -> None:
    async with hold_lock(database, "other", MINUTE):
        assert await taken(database)


async def test_the_lock_is_free_right_after_its_block(database: Database) -> None:
    """This holds within the same millisecond of the server's clock too."""
    for _ in range(100):
        assert await taken(database)


async def test_a_failed_block_releases_the_lock(database: Database) -> None:
    with pytest.raises(LookupError):
        async with hold_lock(database, "work", MINUTE):
            raise LookupError
    assert await taken(database)


async def test_the_lock_of_a_dead_process_is_held_until_its_expiry(database: Database) -> None:
    """A dead process cannot release its lock: only the expiry does."""
    dead = hold_lock(database, "work", timedelta(seconds=3))
    assert await dead.__aenter__()
    assert not await taken(database)
    await asyncio.sleep(3.1)
    assert await taken(database)
    await dead.__aexit__(None, None, None)


async def test_a_late_release_does_not_free_the_successors_lock(database: Database) -> None:
    late = hold_lock(database, "work", timedelta(seconds=0))
    assert await late.__aenter__()
    await asyncio.sleep(0.05)
    async with hold_lock(database, "work", MINUTE) as mine:
        assert mine
        await late.__aexit__(None, None, None)
        assert not await taken(database)


async def test_a_renewed_lock_is_held_beyond_its_first_expiry(database: Database) -> None:
    async with hold_lock(database, "work", timedelta(seconds=3)) as mine:
        assert mine
        for _ in range(3):
            await asyncio.sleep(1.2)
            await mine.renew()
        assert not await taken(database)


async def test_a_lock_that_another_process_took_cannot_be_renewed(database: Database) -> None:
    """The former holder gets an error and stops."""
    async with hold_lock(database, "work", timedelta(seconds=0)) as late:
        assert late
        await asyncio.sleep(0.05)
        async with hold_lock(database, "work", MINUTE):
            with pytest.raises(Unavailable, match="another process"):
                await late.renew()
            assert not await taken(database)
