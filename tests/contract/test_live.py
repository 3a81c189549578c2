"""Live streams over a real change stream: a cursor is valid as long as the server knows its place."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.helpers import accept, an_event, failing
from twofold.errors import Gone, Malformed, Unavailable
from twofold.mongo.client import Database
from twofold.query.cursors import encode_cursor
from twofold.query.filters import Conditions
from twofold.read.live import LiveEvents, StreamItem
from twofold.settings import Settings

ALL = Conditions()


@pytest.fixture
def live(database: Database, settings: Settings) -> LiveEvents:
    """Streams of `events`."""
    return LiveEvents(database["events"], settings)


async def next_event(items: AsyncGenerator[StreamItem]) -> StreamItem:
    """Return the next item with an event."""
    return await anext(item async for item in items if item.event is not None)


async def cursor_behind_one_event(database: Database, live: LiveEvents) -> str:
    """Insert an event, and return the stream's cursor behind it."""
    async with live.follow(ALL, None, "ann") as items:
        await accept(database, an_event())
        return (await next_event(items)).cursor


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize("code", [8, 13, 50, 237, 50811])
async def test_an_error_of_the_server_is_503_and_the_cursor_stays_valid(
    database: Database, live: LiveEvents, code: int
) -> None:
    """The answer is never 400: a reader would drop its cursor, and miss the events in between."""
    cursor = await cursor_behind_one_event(database, live)
    meanwhile = an_event()
    await accept(database, meanwhile)
    async with failing(database, "tests", failCommands=["aggregate"], errorCode=code):
        with pytest.raises(Unavailable):
            async with live.follow(ALL, cursor, "ann"):
                pass
    async with live.follow(ALL, cursor, "ann") as items:
        found = (await next_event(items)).event
    assert found is not None
    assert found.event_id == meanwhile.event_id


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize("code", [260, 280, 286])
async def test_a_cursor_that_left_the_oplog_is_gone(database: Database, live: LiveEvents, code: int) -> None:
    cursor = await cursor_behind_one_event(database, live)
    async with failing(database, "tests", failCommands=["aggregate"], errorCode=code):
        with pytest.raises(Gone):
            async with live.follow(ALL, cursor, "ann"):
                pass


@pytest.mark.guarantee("R30")
async def test_an_altered_cursor_never_reaches_the_server(database: Database, live: LiveEvents) -> None:
    """The checksum covers every character and the purpose of the cursor."""
    cursor = await cursor_behind_one_event(database, live)
    altered = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(0, len(cursor), 7)]
    for wrong in (*altered, cursor[:-1], cursor + "A", encode_cursor(b"\x82", b"feed")):
        with pytest.raises(Malformed):
            async with live.follow(ALL, wrong, "ann"):
                pass


@pytest.mark.guarantee("G9")
async def test_no_caller_takes_all_the_streams(database: Database, settings: Settings) -> None:
    """A caller has a limit of their own. An ended stream does not count."""
    live = LiveEvents(database["events"], settings.model_copy(update={"streams": 3, "streams_each": 2}))
    async with live.follow(ALL, None, "ann"), live.follow(ALL, None, "ann"):
        with pytest.raises(Unavailable, match="you have 2 live streams"):
            async with live.follow(ALL, None, "ann"):
                pass
        async with live.follow(ALL, None, "bob"):
            with pytest.raises(Unavailable, match="this process"):
                async with live.follow(ALL, None, "carol"):
                    pass
    async with live.follow(ALL, None, "ann"):
        pass


@pytest.mark.guarantee("G9")
async def test_a_stream_ends_with_its_callers_token(live: LiveEvents) -> None:
    """The lifetime of the token ends the stream before `stream_s` does."""
    async with asyncio.timeout(30), live.follow(ALL, None, "ann", seconds=0.1) as items:
        assert [item.event async for item in items] == [None]
