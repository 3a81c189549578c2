"""Live streams over a real change stream: a place that was given out is good for as long as the server knows it."""

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


async def next_event(moments: AsyncGenerator[StreamItem]) -> StreamItem:
    """The next moment that has an event."""
    return await anext(moment async for moment in moments if moment.event is not None)


async def place_behind_one(database: Database, live: LiveEvents) -> str:
    """The place of an event that came."""
    async with live.follow(ALL, None, "ann") as moments:
        await accept(database, an_event())
        return (await next_event(moments)).place


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize("code", [8, 13, 50, 237, 50811])
async def test_trouble_at_a_known_place_is_trouble_and_the_place_stays_good(
    database: Database, live: LiveEvents, code: int
) -> None:
    """Never a 400: a reader would believe it, throw its place away, and lose what came meanwhile."""
    place = await place_behind_one(database, live)
    meanwhile = an_event()
    await accept(database, meanwhile)
    async with failing(database, "tests", failCommands=["aggregate"], errorCode=code):
        with pytest.raises(Unavailable):
            async with live.follow(ALL, place, "ann"):
                pass
    async with live.follow(ALL, place, "ann") as moments:
        found = (await next_event(moments)).event
    assert found is not None
    assert found.event_id == meanwhile.event_id


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize("code", [260, 280, 286])
async def test_a_place_that_the_server_knows_no_more_is_gone(database: Database, live: LiveEvents, code: int) -> None:
    place = await place_behind_one(database, live)
    async with failing(database, "tests", failCommands=["aggregate"], errorCode=code):
        with pytest.raises(Gone):
            async with live.follow(ALL, place, "ann"):
                pass


@pytest.mark.guarantee("R30")
async def test_an_altered_place_never_reaches_the_server(database: Database, live: LiveEvents) -> None:
    """Each character is vouched for; so is what the place is for."""
    place = await place_behind_one(database, live)
    altered = [place[:at] + ("A" if place[at] != "A" else "B") + place[at + 1 :] for at in range(0, len(place), 7)]
    for one in (*altered, place[:-1], place + "A", encode_cursor(b"\x82", b"feed")):
        with pytest.raises(Malformed):
            async with live.follow(ALL, one, "ann"):
                pass


@pytest.mark.guarantee("G9")
async def test_no_caller_takes_all_the_streams(database: Database, settings: Settings) -> None:
    """Their own are counted, and one that ended is none."""
    live = LiveEvents(database["events"], settings.model_copy(update={"streams": 3, "streams_each": 2}))
    async with live.follow(ALL, None, "ann"), live.follow(ALL, None, "ann"):
        with pytest.raises(Unavailable, match="of yours"):
            async with live.follow(ALL, None, "ann"):
                pass
        async with live.follow(ALL, None, "bob"):
            with pytest.raises(Unavailable, match="this process"):
                async with live.follow(ALL, None, "carol"):
                    pass
    async with live.follow(ALL, None, "ann"):
        pass


@pytest.mark.guarantee("G9")
async def test_a_stream_ends_when_the_callers_time_is_over(live: LiveEvents) -> None:
    """However long streams go on otherwise."""
    async with asyncio.timeout(30), live.follow(ALL, None, "ann", seconds=0.1) as moments:
        assert [moment.event async for moment in moments] == [None]
