"""Counts of a real MongoDB equal the counts of Python, and come from an index."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from dev.stack import Stack
from tests.contract.test_pages import EVENTS, MONDAY, TYPES, both, matches_all_but_text, questions
from tests.helpers import explained, listened, looked_at, settings_of, some_events, stages
from twofold.errors import Malformed
from twofold.event.model import Event
from twofold.mongo.client import Database, open_database
from twofold.mongo.safe_time import server_time
from twofold.query.filters import Conditions, Ranged
from twofold.read.statistics import DEFAULT, MOST_NAMES, EventCounts, EventStatistics
from twofold.settings import Settings
from twofold.setup.run import set_up

pytestmark = pytest.mark.guarantee("R24")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def counting(stack: Stack) -> AsyncIterator[EventStatistics]:
    """Statistics of `events`, which holds `EVENTS`."""
    own = settings_of(stack, mongodb_database=f"test_{uuid4().hex}", kafka_topic=f"test.{uuid4()}")
    await set_up(own, {})
    async with open_database(own, "tests") as database:
        await both(database, own, EVENTS)
        yield EventStatistics(database["events"], own)
        await database.client.drop_database(database.name)


def conditions(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name not in ("order", "limit", "text", "from", "to")}


def counted(events: list[Event], found: EventCounts) -> None:
    """Assert that the counts are the counts of the events."""
    assert found.total == len(events)
    assert found.by_type == Counter(event.event_type for event in events)
    assert found.by_service == Counter(event.metadata.service_name for event in events)
    hours = Counter(event.timestamp.replace(minute=0, second=0, microsecond=0) for event in events)
    assert [(hour.hour, hour.events) for hour in found.by_hour] == sorted(hours.items())


@pytest.mark.asyncio(loop_scope="module")
@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=questions)
async def test_counts_equal_the_counts_of_python(counting: EventStatistics, asked: dict[str, Any]) -> None:
    at = {"from": asked.get("from", MONDAY), "to": asked.get("to", MONDAY + timedelta(hours=9))}
    if at["from"] > at["to"]:
        return
    found = await counting.count(Ranged.model_validate(conditions(asked) | at))
    counted([event for event in EVENTS if matches_all_but_text(event, conditions(asked) | at)], found)


@pytest.mark.asyncio(loop_scope="module")
@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=questions)
async def test_types_equal_the_types_of_the_matching_events(counting: EventStatistics, asked: dict[str, Any]) -> None:
    found = await counting.types(Conditions.model_validate(conditions(asked)))
    there = {event.event_type for event in EVENTS if matches_all_but_text(event, conditions(asked))}
    assert found.types == sorted(there)
    assert not found.more


@pytest.mark.asyncio(loop_scope="module")
async def test_the_default_range_is_the_last_day(counting: EventStatistics) -> None:
    now = await server_time(counting._collection.database)
    found = await counting.count(Ranged())
    assert abs((found.until - now).total_seconds()) < 60
    assert found.until - found.since == DEFAULT


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("days", [31.1, 400])
async def test_the_range_has_a_limit(counting: EventStatistics, days: float) -> None:
    with pytest.raises(Malformed, match="at most 31 days"):
        await counting.count(Ranged.model_validate({"from": MONDAY, "to": MONDAY + timedelta(days=days)}))


@pytest.mark.guarantee("R25")
async def test_a_long_list_of_types_is_cut_and_says_so(database: Database, settings: Settings) -> None:
    events = [event for n in range(MOST_NAMES + 3) for event in some_events(1, event_type=f"t{n:05}")]
    await both(database, settings, events)
    own = EventStatistics(database["events"], settings)
    found = await own.types(Conditions())
    assert (len(found.types), found.more) == (MOST_NAMES, True)
    everything = await own.count(Ranged())
    assert (len(everything.by_type), everything.total) == (MOST_NAMES, len(events))


@pytest.mark.guarantee("R25")
@pytest.mark.parametrize(
    "asked",
    [{}, {"type": TYPES[:2]}, {"user": "ann"}, {"aggregate": "x"}, {"correlation": "x"}, {"service": "x"}],
    ids=lambda asked: "".join(asked) or "all",
)
async def test_counts_come_from_an_index(settings: Settings, asked: dict[str, Any]) -> None:
    """The counts of a range without filters read no document."""
    wanted = Ranged.model_validate(asked | {"from": MONDAY, "to": MONDAY + timedelta(hours=9)})
    async with listened(settings) as (database, commands):
        await both(database, settings, EVENTS)
        commands.sent.clear()
        await EventStatistics(database["events"], settings).count(wanted)
        sent = [command for command in commands.sent if command.command_name == "aggregate"]
        assert len(sent) == (1 if asked else 2)
        for command in sent:
            explanation = await explained(database, command)
            names = {stage["stage"] for stage in stages(explanation)}
            assert "IXSCAN" in names
            assert "COLLSCAN" not in names
            assert asked or looked_at(explanation, "totalDocsExamined") == 0


@pytest.mark.guarantee("R25")
async def test_the_list_of_types_skips_through_the_index(settings: Settings) -> None:
    """MongoDB skips from type to type, and reads no keys in between."""
    async with listened(settings) as (database, commands):
        await both(database, settings, EVENTS)
        commands.sent.clear()
        await EventStatistics(database["events"], settings).types(Conditions())
        (sent,) = [command for command in commands.sent if command.command_name == "aggregate"]
        explanation = await explained(database, sent)
    assert "DISTINCT_SCAN" in {stage["stage"] for stage in stages(explanation)}
