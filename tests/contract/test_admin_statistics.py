"""Counts of `events` for admins, and of the log by type, on a real MongoDB: they equal the counts of Python."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contract.test_pages import both
from tests.helpers import an_event, explained, listened, looked_at, some_events, stages
from twofold.errors import Unavailable
from twofold.event.model import Event
from twofold.mongo.client import Database
from twofold.mongo.safe_time import server_time
from twofold.query.filters import Range
from twofold.read.admin_statistics import TOP, AdminStatistics
from twofold.read.log_summary import LogSummary
from twofold.settings import Settings

pytestmark = pytest.mark.guarantee("R24", "R25")

TYPES = ("order.created", "order.paid", "order.failed", "order.completed", "pod.failed", "failed", "failed.not")
HOUR = timedelta(hours=1)


async def a_week(database: Database, settings: Settings, number: int = 300) -> list[Event]:
    """Store events of the last week and of the next hour, of few types and users."""
    rng, now = random.Random(3), await server_time(database)
    events = []
    for _ in range(number):
        metadata: dict[str, Any] = {"service_name": "/shop"}
        if rng.random() < 0.8:
            metadata["user_id"] = f"user-{rng.randrange(14)}"
        events.append(
            an_event(
                event_type=rng.choice(TYPES),
                timestamp=now - timedelta(minutes=rng.randrange(-60, 7 * 24 * 60)),
                aggregate_id=rng.choice([None, *(f"order-{n}" for n in range(30))]),
                metadata=metadata,
            )
        )
    await both(database, settings, events)
    return events


def within(events: Sequence[Event], since: datetime, until: datetime) -> list[Event]:
    return [event for event in events if since <= event.timestamp < until]


class TestLastHours:
    @pytest.mark.parametrize("hours", [1, 24, 720])
    async def test_every_figure_equals_a_plain_count(self, database: Database, settings: Settings, hours: int) -> None:
        events = await a_week(database, settings)
        found = await AdminStatistics(database, settings).last_hours(hours)
        assert found.until - found.since == hours * HOUR
        there = within(events, found.since, found.until)
        errors = [event for event in there if event.event_type in ("order.failed", "pod.failed", "failed")]
        assert (found.total, found.errors) == (len(there), len(errors))
        assert found.error_rate == len(errors) / len(there)
        assert "failed" in found.error_rule
        assert {line.event_type: line.count for line in found.top_types} == Counter(e.event_type for e in there)
        users = Counter(event.metadata.user_id for event in there if event.metadata.user_id)
        assert found.active_users == len(users)
        assert len(found.top_users) == min(TOP, len(users))
        assert all(users[line.user_id] == line.count for line in found.top_users)
        assert min(line.count for line in found.top_users) >= max(
            (count for user, count in users.items() if user not in {line.user_id for line in found.top_users}),
            default=0,
        )
        by_hour = Counter(event.timestamp.replace(minute=0, second=0, microsecond=0) for event in there)
        assert len(found.hourly) in (hours, hours + 1)
        assert {line.hour: line.count for line in found.hourly if line.count} == by_hour
        assert sum(line.errors for line in found.hourly) == len(errors)

    async def test_processing_time_is_from_the_first_event_to_the_finishing_event(
        self, database: Database, settings: Settings
    ) -> None:
        """The first event may lie before the range. An aggregate whose first event finishes it is left out."""
        now = await server_time(database)

        def at(minutes: float, event_type: str, aggregate: str | None) -> Event:
            return an_event(
                timestamp=now - timedelta(minutes=minutes), event_type=f"order.{event_type}", aggregate_id=aggregate
            )

        events = [
            *(at(600, "created", "slow"), at(300, "paid", "slow"), at(30, "completed", "slow")),
            *(at(20, "created", "quick"), at(10, "failed", "quick"), at(5, "failed", "quick")),
            *(at(15, "completed", "alone"), at(10, "created", "unfinished"), at(8, "completed", None)),
            *(at(300, "created", "before"), at(200, "completed", "before")),
        ]
        await both(database, settings, events)
        found = (await AdminStatistics(database, settings).last_hours(1)).processing
        assert (found.aggregates, found.sampled) == (2, False)
        assert found.mean_ms == pytest.approx((570 + 10) / 2 * 60_000, abs=1)
        for word in ("first event of an aggregate", "completed", "failed", "1000"):
            assert word in found.rule

    async def test_settings_choose_the_error_words_and_the_finishing_words(
        self, database: Database, settings: Settings
    ) -> None:
        own = settings.model_copy(
            update={"error_words": ("paid",), "finishing_words": ("sent",), "statistics_sample": 2}
        )
        now = await server_time(database)
        events = [
            an_event(event_type=f"order.{word}", aggregate_id=aggregate, timestamp=now - timedelta(minutes=age))
            for aggregate in ("a", "b", "c")
            for word, age in (("paid", 9), ("sent", 3), ("completed", 1))
        ]
        await both(database, own, events)
        found = await AdminStatistics(database, own).last_hours(1)
        assert found.errors == 3
        assert found.processing.sampled, "of the latest two"
        assert (found.processing.aggregates, found.processing.mean_ms) == (2, 6 * 60_000)

    async def test_without_events_the_figures_are_zero(self, database: Database, settings: Settings) -> None:
        found = await AdminStatistics(database, settings).last_hours(3)
        assert (found.total, found.error_rate, found.active_users, found.processing.mean_ms) == (0, 0.0, 0, None)
        assert len(found.hourly) in (3, 4)

    async def test_statistics_that_take_too_long_are_unavailable(self, database: Database, settings: Settings) -> None:
        await a_week(database, settings)
        with pytest.raises(Unavailable):
            await AdminStatistics(database, settings.model_copy(update={"statistics_timeout_s": 1e-6})).last_hours(24)

    async def test_statistics_read_only_the_range_by_an_index(self, database: Database, settings: Settings) -> None:
        """`events` holds 5 times as many other events. The counts by type and hour read no document."""
        now = await server_time(database)
        recent = [
            an_event(event_type="order.completed", timestamp=now - timedelta(minutes=5), aggregate_id=f"order-{n}")
            for n in range(20)
        ]
        starts = [
            an_event(event_type="order.created", timestamp=now - timedelta(hours=9), aggregate_id=f"order-{n}")
            for n in range(20)
        ]
        old = some_events(100, event_type="order.completed", timestamp=now - timedelta(days=9))
        await both(database, settings, [*recent, *starts, *old])
        async with listened(settings) as (heard, commands):
            await AdminStatistics(heard, settings).last_hours(1)
        plans = [await explained(database, sent) for sent in commands.sent if sent.command_name == "aggregate"]
        assert len(plans) == 3
        for plan in plans:
            names = {stage["stage"] for stage in stages(plan)}
            assert "IXSCAN" in names
            assert "COLLSCAN" not in names
            assert looked_at(plan, "totalKeysExamined") <= 50
        assert "FETCH" not in {stage["stage"] for stage in stages(plans[0])}
        (lookup,) = [stage["$lookup"] | stage for stage in plans[2]["stages"] if "$lookup" in stage]
        assert lookup["indexesUsed"] == ["by_aggregate"]


class TestUser:
    async def test_an_overview_equals_a_plain_count_of_the_users_events(
        self, database: Database, settings: Settings
    ) -> None:
        events = await a_week(database, settings)
        found = await AdminStatistics(database, settings).user("user-3", 72)
        there = [event for event in within(events, found.since, found.until) if event.metadata.user_id == "user-3"]
        assert there
        assert found.total == len(there)
        assert (found.first, found.last) == (min(e.timestamp for e in there), max(e.timestamp for e in there))
        assert {line.event_type: line.count for line in found.types} == Counter(e.event_type for e in there)
        assert found.aggregates == len({event.aggregate_id for event in there} - {None})
        assert [event.event_id for event in found.recent] == [
            event.event_id for event in sorted(there, key=lambda e: (e.timestamp, e.order), reverse=True)[:20]
        ]

    async def test_an_unknown_user_has_no_events(self, database: Database, settings: Settings) -> None:
        found = await AdminStatistics(database, settings).user("$ne", 72)
        assert (found.total, found.first, found.recent) == (0, None, [])

    async def test_an_overview_reads_only_the_users_own_events(self, database: Database, settings: Settings) -> None:
        mine = some_events(10, metadata={"service_name": "/shop", "user_id": "ann"})
        await both(database, settings, mine + some_events(90, metadata={"service_name": "/shop", "user_id": "bob"}))
        async with listened(settings) as (heard, commands):
            await AdminStatistics(heard, settings).user("ann", 1)
        sent = [command for command in commands.sent if command.command_name in ("aggregate", "find")]
        assert len(sent) == 3
        for plan in [await explained(database, command) for command in sent]:
            names = {stage["stage"] for stage in stages(plan)}
            assert "IXSCAN" in names
            assert "COLLSCAN" not in names
            assert looked_at(plan, "totalKeysExamined") <= 12


class TestTypesOfTheLog:
    async def types(self, database: Database, range_: Range, limit: int = 3) -> dict[str, tuple[Any, ...]]:
        summary, after = LogSummary(database), None
        found: dict[str, tuple[Any, ...]] = {}
        while True:
            page = await summary.types(range_, after, limit, 10.0)
            assert len(page.types) <= limit
            found |= {line.event_type: (line.count, line.first, line.last) for line in page.types}
            if page.next is None:
                return found
            after = page.next

    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_a_type_has_its_count_and_its_first_and_last_time_in_a_range(
        self, database: Database, settings: Settings, limit: int
    ) -> None:
        events = await a_week(database, settings)
        now = datetime.now(UTC)
        for since, until in ((None, None), (now - 72 * HOUR, None), (None, now - 72 * HOUR), (now + HOUR * 9, None)):
            there = within(events, since or now - 999 * HOUR, until or now + 999 * HOUR)
            expected = {}
            for event_type in sorted({event.event_type for event in there}):
                times = [event.timestamp for event in there if event.event_type == event_type]
                expected[event_type] = (len(times), min(times), max(times))
            assert await self.types(database, Range(since=since, until=until), limit) == expected

    async def test_every_page_advances_by_a_type_at_least(self, database: Database, settings: Settings) -> None:
        """The next page continues behind this type."""
        events = await a_week(database, settings)
        found, after, pages = list[str](), None, 0
        while pages == 0 or after is not None:
            page = await LogSummary(database).types(Range(), after, 100, 0.0)
            assert len(page.types) == 1
            found, after, pages = [*found, page.types[0].event_type], page.next, pages + 1
        assert found == sorted({event.event_type for event in events})

    async def test_the_page_of_types_reads_the_index_and_no_document(
        self, database: Database, settings: Settings
    ) -> None:
        await a_week(database, settings)
        async with listened(settings) as (heard, commands):
            await LogSummary(heard).types(Range(), None, 100, 10.0)
        for sent in [sent for sent in commands.sent if sent.command_name in ("find", "aggregate")]:
            plan = await explained(database, sent)
            names = {stage["stage"] for stage in stages(plan)}
            assert not {"COLLSCAN", "FETCH", "SORT"} & names
            if sent.command_name == "find":
                assert looked_at(plan, "totalKeysExamined") <= 1
