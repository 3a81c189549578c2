"""`events` for admins on a real MongoDB: the results of a plain Python program, by an index."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dev.stack import Stack
from tests.contract.test_pages import EVENTS, both, matches, questions
from tests.helpers import accept, an_event, explained, listened, looked_at, settings_of, some_events, stages
from twofold.errors import Malformed
from twofold.event.model import Event
from twofold.mongo.client import Database, open_database
from twofold.query.filters import Filter
from twofold.read.admin_events import MAX_RELATED, AdminEventsRepository, Browse, Sort
from twofold.read.export import encode_export
from twofold.read.models import EventOut, UnreadableEvent
from twofold.settings import Settings
from twofold.setup.run import set_up
from twofold.storage.outbox import Outbox

pytestmark = pytest.mark.guarantee("R23", "R24")

MONDAY = datetime(2026, 7, 6, tzinfo=UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(stack: Stack) -> AsyncIterator[AdminEventsRepository]:
    """Return the repository of `events`, which holds `EVENTS`."""
    own = settings_of(
        stack, mongodb_database=f"test_{uuid4().hex}", kafka_topic=f"test.{uuid4()}", search_s=1.5, search_keys=3
    )
    await set_up(own, {})
    async with open_database(own, "tests") as database:
        await both(database, own, EVENTS)
        yield AdminEventsRepository(database, own)
        await database.client.drop_database(database.name)


async def browsed(repository: AdminEventsRepository, asked: dict[str, Any]) -> list[EventOut]:
    """Return the events of successive pages."""
    wanted: Browse | None = Browse.model_validate(asked)
    found: list[EventOut] = []
    while wanted is not None:
        page = await repository.browse(wanted)
        assert len(page.events) <= wanted.limit
        found += page.events
        wanted = Browse.model_validate(asked | {"cursor": page.next}) if page.next else None
    return found


def in_order(events: Sequence[Event], asked: dict[str, Any]) -> list[Event]:
    def key(event: Event) -> tuple[bytes, datetime, int | None]:
        first = {"timestamp": "", "type": event.event_type, "service": event.metadata.service_name}[asked["sort"]]
        return first.encode(), event.timestamp, event.order

    return sorted(events, key=key, reverse=asked["order"] == "newest")


sorts = st.sampled_from(["timestamp", "type", "service"])


class TestBrowse:
    @pytest.mark.slow
    @pytest.mark.asyncio(loop_scope="module")
    @hypothesis_settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(question=questions, sort=sorts)
    async def test_every_combination_of_filters_and_order_equals_a_plain_python_filter(
        self, filled: AdminEventsRepository, question: dict[str, Any], sort: Sort
    ) -> None:
        """Every event comes once, with pages of any size."""
        asked = question | {"sort": sort}
        expected = in_order([event for event in EVENTS if matches(event, asked)], asked)
        found = await browsed(filled, asked)
        assert [event.event_id for event in found] == [event.event_id for event in expected]

    @pytest.mark.parametrize("sort", ["payload", "$where", "metadata.user_id", "", "seq"])
    def test_other_fields_are_no_order(self, sort: str) -> None:
        with pytest.raises(ValueError, match="sort"):
            Browse.model_validate({"sort": sort})

    @pytest.mark.parametrize("sort", ["type", "service"])
    async def test_a_cursor_is_valid_for_its_own_query_only(
        self, database: Database, settings: Settings, sort: str
    ) -> None:
        await accept(database, *some_events(3))
        page = await AdminEventsRepository(database, settings).browse(Browse.model_validate({"sort": sort, "limit": 1}))
        assert page.next is not None
        for other in ({"sort": sort, "order": "oldest"}, {"sort": "timestamp"}, {"sort": sort, "user": "x"}):
            with pytest.raises(Malformed):
                Browse.model_validate(other | {"cursor": page.next})
        with pytest.raises(Malformed):
            Browse.model_validate({"sort": sort, "cursor": page.next[:-2] + "AA"})

    @pytest.mark.guarantee("R25")
    @pytest.mark.parametrize("sort", ["type", "service"])
    async def test_a_rare_match_in_another_order_is_a_search_that_may_be_cut(
        self, database: Database, settings: Settings, sort: str
    ) -> None:
        """With almost no search time, a page looks at one more event."""
        events = [an_event(payload={"note": "needle" if n % 10 == 0 else "hay"}) for n in range(30)]
        await accept(database, *events)
        repository = AdminEventsRepository(database, settings.model_copy(update={"search_s": 1e-9}))
        page = await repository.browse(Browse.model_validate({"sort": sort, "text": "needle"}))
        assert page.cut
        found = [event.event_id for event in await browsed(repository, {"sort": sort, "text": "needle"})]
        assert sorted(found) == sorted(event.event_id for event in events[::10])

    @pytest.mark.guarantee("R25")
    @pytest.mark.parametrize("order", ["newest", "oldest"])
    @pytest.mark.parametrize("sort", ["type", "service"])
    async def test_a_page_in_another_order_is_a_bounded_scan_of_its_index(
        self, database: Database, settings: Settings, sort: str, order: str
    ) -> None:
        """The scan begins at the cursor, also within the events of one type."""
        await accept(database, *some_events(60))
        asked = {"sort": sort, "order": order, "limit": 20}
        first = await AdminEventsRepository(database, settings).browse(Browse.model_validate(asked))
        async with listened(settings) as (heard, commands):
            await AdminEventsRepository(heard, settings).browse(Browse.model_validate(asked | {"cursor": first.next}))
        (find,) = [sent for sent in commands.sent if sent.command_name == "find"]
        explanation = await explained(database, find)
        names = {stage["stage"] for stage in stages(explanation["queryPlanner"])}
        assert "IXSCAN" in names
        assert not {"COLLSCAN", "SORT"} & names
        assert looked_at(explanation["executionStats"], "totalKeysExamined") <= 41


@pytest.mark.parametrize("asked", [{}, {"type": ("order.created",)}])
@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_a_document_without_the_value_of_the_order_is_unreadable_and_hides_no_other(
    database: Database, settings: Settings, order: str, asked: dict[str, Any]
) -> None:
    """It was changed in the database."""
    events = some_events(4)
    await accept(database, *events)
    await database.events.update_one({"_id": events[1].event_id}, {"$unset": {"metadata.service_name": 1}})
    repository = AdminEventsRepository(database, settings.model_copy(update={"search_keys": 1}))
    wanted = Browse.model_validate({"sort": "service", "order": order, "limit": 10} | asked)
    page = await repository.browse(wanted)
    assert page.unreadable == [str(events[1].event_id)]
    assert {event.event_id for event in page.events} == {event.event_id for event in events if event != events[1]}


class TestDetail:
    async def test_an_empty_correlation_relates_no_events(self, database: Database, settings: Settings) -> None:
        events = some_events(2, metadata={"service_name": "/shop", "correlation_id": ""})
        await accept(database, *events)
        detail = await AdminEventsRepository(database, settings).detail(events[0].event_id)
        assert detail is not None
        assert [related.event_id for related in detail.timeline] == [events[0].event_id]

    async def test_the_timeline_has_the_related_events_in_the_order_of_time(
        self, database: Database, settings: Settings
    ) -> None:
        def at(minute: int, aggregate: str, correlation: str) -> Event:
            metadata = {"service_name": "/shop", "correlation_id": correlation}
            return an_event(timestamp=MONDAY + timedelta(minutes=minute), aggregate_id=aggregate, metadata=metadata)

        before, event, same, after, stranger = (
            at(1, "a", "other"),
            at(2, "a", "c"),
            at(2, "b", "c"),
            at(3, "a", "c"),
            at(2, "x", "y"),
        )
        await accept(database, event, after, stranger, before, same)
        detail = await AdminEventsRepository(database, settings).detail(event.event_id)
        assert detail is not None
        assert detail.event.event_id == event.event_id
        relations = {related.event_id: related.related_by for related in detail.timeline}
        assert relations == {
            before.event_id: ["aggregate"],
            event.event_id: [],
            same.event_id: ["correlation"],
            after.event_id: ["aggregate", "correlation"],
        }
        assert [related.timestamp for related in detail.timeline] == sorted(
            related.timestamp for related in detail.timeline
        )
        assert detail.complete

    @pytest.mark.guarantee("R25")
    async def test_the_timeline_of_a_large_aggregate_is_the_part_around_the_event(
        self, database: Database, settings: Settings
    ) -> None:
        """The detail says that the timeline is incomplete."""
        events = [
            an_event(aggregate_id="large", timestamp=MONDAY + timedelta(seconds=second))
            for second in range(3 * MAX_RELATED)
        ]
        await accept(database, *events)
        detail = await AdminEventsRepository(database, settings).detail(events[75].event_id)
        assert detail is not None
        assert not detail.complete
        assert [related.event_id for related in detail.timeline] == [event.event_id for event in events[25:126]]

    async def test_the_detail_has_the_outbox_state(self, database: Database, settings: Settings) -> None:
        event, repository = an_event(), AdminEventsRepository(database, settings)
        await accept(database, event)
        new = await repository.detail(event.event_id)
        await Outbox(database).confirm([event.event_id], timedelta(days=30))
        confirmed = await repository.detail(event.event_id)
        assert new is not None
        assert confirmed is not None
        assert (new.outbox.state, new.outbox.expires_at) == ("new", None)
        assert confirmed.outbox.state == "in_log"
        assert confirmed.outbox.expires_at is not None

    async def test_an_unknown_event_has_no_detail(self, database: Database, settings: Settings) -> None:
        assert await AdminEventsRepository(database, settings).detail(uuid4()) is None


@pytest.mark.guarantee("R35")
class TestExport:
    @pytest.mark.asyncio(loop_scope="module")
    @hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(asked=questions)
    async def test_an_export_equals_the_pages_of_the_same_filters(
        self, filled: AdminEventsRepository, asked: dict[str, Any]
    ) -> None:
        """The events have the same form and the same order."""
        pages = await browsed(filled, asked)
        exported = [event async for event in filled.export(Filter.model_validate(asked))]
        assert exported == pages

    async def test_an_export_continues_from_chunk_to_chunk(self, database: Database, settings: Settings) -> None:
        """The events of one time need more than one query."""
        events = some_events(11_000, timestamp=MONDAY)
        for first in range(0, len(events), 1000):
            await accept(database, *events[first : first + 1000])
        found = [event async for event in AdminEventsRepository(database, settings).export(Filter())]
        assert len(found) == len(events)
        assert {event.event_id for event in found} == {event.event_id for event in events}

    async def test_an_unreadable_event_keeps_its_place(self, database: Database, settings: Settings) -> None:
        events = some_events(3)
        await accept(database, *events)
        await database["events"].update_one({"_id": events[1].event_id}, {"$set": {"event_type": 5}})
        repository = AdminEventsRepository(database, settings)
        found = [item async for item in repository.export(Filter())]
        assert [item.event_id for item in found if isinstance(item, UnreadableEvent)] == [str(events[1].event_id)]
        text = b"".join([chunk async for chunk in encode_export(repository.export(Filter()), "json")])
        assert len(json.loads(text)) == 3
        assert Counter("unreadable" in item for item in json.loads(text)) == {True: 1, False: 2}
