"""What admins see of `events`, on the real server: exactly what a plain Python program finds, and by an index."""

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
    """`events` with `EVENTS` in it."""
    own = settings_of(
        stack, mongodb_database=f"test_{uuid4().hex}", kafka_topic=f"test.{uuid4()}", search_s=1.5, search_keys=3
    )
    await set_up(own, {})
    async with open_database(own, "tests") as database:
        await both(database, own, EVENTS)
        yield AdminEventsRepository(database, own)
        await database.client.drop_database(database.name)


async def browsed(repository: AdminEventsRepository, asked: dict[str, Any]) -> list[EventOut]:
    """All pages, one after the other."""
    wanted: Browse | None = Browse.model_validate(asked)
    found: list[EventOut] = []
    while wanted is not None:
        page = await repository.browse(wanted)
        assert len(page.events) <= wanted.limit
        found += page.events
        wanted = Browse.model_validate(asked | {"cursor": page.next}) if page.next else None
    return found


def in_order(events: Sequence[Event], asked: dict[str, Any]) -> list[Event]:
    def key(event: Event) -> tuple[bytes, datetime, bytes]:
        first = {"timestamp": "", "type": event.event_type, "service": event.metadata.service_name}[asked["sort"]]
        return first.encode(), event.timestamp, event.event_id.bytes

    return sorted(events, key=key, reverse=asked["order"] == "newest")


sorts = st.sampled_from(["timestamp", "type", "service"])


class TestBrowse:
    @pytest.mark.slow
    @pytest.mark.asyncio(loop_scope="module")
    @hypothesis_settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(question=questions, sort=sorts)
    async def test_every_combination_gives_what_a_plain_filter_gives_in_the_order_of_any_field(
        self, filled: AdminEventsRepository, question: dict[str, Any], sort: Sort
    ) -> None:
        """Each event once, however small the pages."""
        asked = question | {"sort": sort}
        expected = in_order([event for event in EVENTS if matches(event, asked)], asked)
        found = await browsed(filled, asked)
        assert [event.event_id for event in found] == [event.event_id for event in expected]

    @pytest.mark.parametrize("sort", ["payload", "$where", "metadata.user_id", "", "seq"])
    def test_no_other_field_is_sorted_by(self, sort: str) -> None:
        with pytest.raises(ValueError, match="sort"):
            Browse.model_validate({"sort": sort})

    @pytest.mark.parametrize("sort", ["type", "service"])
    async def test_a_cursor_is_good_for_its_own_question_alone(
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
    async def test_a_rare_match_in_another_order_is_a_search_that_is_cut_and_goes_on(
        self, database: Database, settings: Settings, sort: str
    ) -> None:
        """With hardly any time, each page looks at one event more."""
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
        """From the cursor on, however much of the same type lies before it."""
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


class TestDetail:
    async def test_it_has_the_kin_by_correlation_and_aggregate_in_the_order_of_time(
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
        relations = {kin.event_id: kin.related_by for kin in detail.timeline}
        assert relations == {
            before.event_id: ["aggregate"],
            event.event_id: [],
            same.event_id: ["correlation"],
            after.event_id: ["aggregate", "correlation"],
        }
        assert [kin.timestamp for kin in detail.timeline] == sorted(kin.timestamp for kin in detail.timeline)
        assert detail.complete

    @pytest.mark.guarantee("R25")
    async def test_an_aggregate_of_any_size_is_shown_around_the_event(
        self, database: Database, settings: Settings
    ) -> None:
        """Never as a whole: what lies next to the event, and that there is more."""
        events = [
            an_event(aggregate_id="large", timestamp=MONDAY + timedelta(seconds=second))
            for second in range(3 * MAX_RELATED)
        ]
        await accept(database, *events)
        detail = await AdminEventsRepository(database, settings).detail(events[75].event_id)
        assert detail is not None
        assert not detail.complete
        assert [kin.event_id for kin in detail.timeline] == [event.event_id for event in events[25:126]]

    async def test_it_says_where_the_event_is_on_its_way_into_the_log(
        self, database: Database, settings: Settings
    ) -> None:
        event, repository = an_event(), AdminEventsRepository(database, settings)
        await accept(database, event)
        new = await repository.detail(event.event_id)
        await Outbox(database).confirm([event.event_id], timedelta(days=30))
        confirmed = await repository.detail(event.event_id)
        assert new is not None
        assert confirmed is not None
        assert (new.mark.state, new.mark.expires_at) == ("new", None)
        assert confirmed.mark.state == "in_log"
        assert confirmed.mark.expires_at is not None

    async def test_what_is_not_there_is_none(self, database: Database, settings: Settings) -> None:
        assert await AdminEventsRepository(database, settings).detail(uuid4()) is None


@pytest.mark.guarantee("R35")
class TestExport:
    @pytest.mark.asyncio(loop_scope="module")
    @hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(asked=questions)
    async def test_it_holds_exactly_what_browsing_the_same_filters_shows(
        self, filled: AdminEventsRepository, asked: dict[str, Any]
    ) -> None:
        """Each event, as it is shown there, in the same order."""
        pages = await browsed(filled, asked)
        exported = [event async for event in filled.export(Filter.model_validate(asked))]
        assert exported == pages

    async def test_it_goes_on_from_piece_to_piece(self, database: Database, settings: Settings) -> None:
        """More than one query of the database reads, with many of one time."""
        events = some_events(11_000, timestamp=MONDAY)
        for first in range(0, len(events), 1000):
            await accept(database, *events[first : first + 1000])
        found = [event async for event in AdminEventsRepository(database, settings).export(Filter())]
        assert len(found) == len(events)
        assert {event.event_id for event in found} == {event.event_id for event in events}

    async def test_an_event_that_somebody_made_unreadable_is_named(
        self, database: Database, settings: Settings
    ) -> None:
        events = some_events(3)
        await accept(database, *events)
        await database["events"].update_one({"_id": events[1].event_id}, {"$set": {"payload": "none"}})
        repository = AdminEventsRepository(database, settings)
        found = [item async for item in repository.export(Filter())]
        assert [item.event_id for item in found if isinstance(item, UnreadableEvent)] == [str(events[1].event_id)]
        text = b"".join([piece async for piece in encode_export(repository.export(Filter()), "json")])
        assert len(json.loads(text)) == 3
        assert Counter("unreadable" in item for item in json.loads(text)) == {True: 1, False: 2}
