"""The lock between processes, on the real server's clock."""

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


async def test_only_one_holds_it(database: Database) -> None:
    async with hold_lock(database, "work", MINUTE) as mine:
        assert mine
        assert not await taken(database)


async def test_of_many_at_once_only_one_gets_it(database: Database) -> None:
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


async def test_another_lock_is_another_matter(database: Database) -> None:
    async with hold_lock(database, "other", MINUTE):
        assert await taken(database)


async def test_it_is_free_again_at_once_after_its_block(database: Database) -> None:
    """Also within the same millisecond of the server's clock."""
    for _ in range(100):
        assert await taken(database)


async def test_it_is_free_after_a_block_that_failed(database: Database) -> None:
    with pytest.raises(LookupError):
        async with hold_lock(database, "work", MINUTE):
            raise LookupError
    assert await taken(database)


async def test_a_holder_that_died_holds_it_until_its_expiry(database: Database) -> None:
    """Nothing runs behind the death of a process: only the time that it asked for ends its hold."""
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


async def test_one_that_is_renewed_is_held_beyond_its_time(database: Database) -> None:
    async with hold_lock(database, "work", timedelta(seconds=3)) as mine:
        assert mine
        for _ in range(3):
            await asyncio.sleep(1.2)
            await mine.renew()
        assert not await taken(database)


async def test_one_that_another_took_is_not_renewed(database: Database) -> None:
    """Its holder learns that it works beside another, and stops."""
    async with hold_lock(database, "work", timedelta(seconds=0)) as late:
        assert late
        await asyncio.sleep(0.05)
        async with hold_lock(database, "work", MINUTE):
            with pytest.raises(Unavailable, match="another's"):
                await late.renew()
            assert not await taken(database)
