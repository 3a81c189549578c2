"""Pages of a real MongoDB: the events of a plain Python filter, by an index, also during inserts."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from bson import ObjectId
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.requests import Request

from dev.stack import Stack
from functions.query import operations
from functions.query.operations import Query
from tests.helpers import (
    accept,
    an_event,
    explained,
    failing,
    listened,
    log,
    looked_at,
    settings_of,
    some_events,
    stages,
)
from twofold.errors import Unavailable
from twofold.event.model import Event
from twofold.mongo.client import Database, open_database
from twofold.query.cursors import PageCursor
from twofold.query.filters import FIELDS, Conditions, Filter, Ranged
from twofold.read.live import LiveEvents
from twofold.read.models import EventOut
from twofold.read.pages import EventReader
from twofold.read.statistics import EventStatistics
from twofold.settings import Settings
from twofold.setup.run import set_up
from twofold.storage.indexes import INDEXED_FILTERS
from twofold.web.api import Call
from twofold.web.permissions import Principal

MONDAY = datetime(2026, 7, 6, tzinfo=UTC)
TYPES = ("order.created", "order.paid", "Order.Paid", "order", "$ne", "order.creat.d")
AGGREGATES = ("order-1", "order-2", "ORDER-1", "$where", ".*")
USERS = ("ann", "bob", "Ann", "$ne", "ann.*")
CORRELATIONS = ("c-1", "c-2", "C-1")
SERVICES = ("/shop", "/shop/", "/pay")
WORDS = ("blue", "Blue whale", "größe", "47.11", "", "true", "a.b", "$set", "x\u2028y")


def a_lot(seed: int = 7, number: int = 160) -> list[Event]:
    """Make events of few values and few times, so every combination of filters matches a part of them."""
    rng = random.Random(seed)
    events = []
    for _ in range(number):
        metadata: dict[str, Any] = {"service_name": rng.choice(SERVICES)}
        for name, values in (("user_id", USERS), ("correlation_id", CORRELATIONS)):
            if rng.random() < 0.8:
                metadata[name] = rng.choice(values)
        if rng.random() < 0.2:
            metadata["extensions"] = {"tenant": rng.choice(("Blue", "red"))}
        events.append(
            an_event(
                event_type=rng.choice(TYPES),
                aggregate_id=rng.choice((*AGGREGATES, None)),
                timestamp=MONDAY + timedelta(hours=rng.randrange(6), milliseconds=rng.choice((0, 0, 1))),
                metadata=metadata,
                payload={"note": rng.choice(WORDS), "n": [rng.randrange(3), {"ref": rng.choice(WORDS)}], "$ref": 1},
            )
        )
    return events


EVENTS = a_lot()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(stack: Stack) -> AsyncIterator[dict[str, EventReader]]:
    """Return a reader of each collection. Both collections hold `EVENTS`."""
    own = settings_of(
        stack, mongodb_database=f"test_{uuid4().hex}", kafka_topic=f"test.{uuid4()}", search_s=1.5, search_keys=3
    )
    await set_up(own, {})
    async with open_database(own, "tests") as database:
        yield await both(database, own, EVENTS)
        await database.client.drop_database(database.name)


async def both(database: Database, settings: Settings, events: list[Event]) -> dict[str, EventReader]:
    """Put `events` into both collections, and return a reader of each collection."""
    await accept(database, *events)
    await log(database, *events)
    return {name: EventReader(database[name], settings) for name in INDEXED_FILTERS}


def matches(event: Event, asked: dict[str, Any]) -> bool:
    """Return True if the event matches, without MongoDB and without the product's code."""
    if "type" in asked and event.event_type not in asked["type"]:
        return False
    if "aggregate" in asked and event.aggregate_id != asked["aggregate"]:
        return False
    if "correlation" in asked and event.metadata.correlation_id != asked["correlation"]:
        return False
    if "user" in asked and event.metadata.user_id != asked["user"]:
        return False
    if "service" in asked and event.metadata.service_name != asked["service"]:
        return False
    if "from" in asked and event.timestamp < asked["from"]:
        return False
    if "to" in asked and event.timestamp >= asked["to"]:
        return False
    return "text" not in asked or any(asked["text"].casefold() in word.casefold() for word in words_of(event))


def words_of(event: Event) -> list[str]:
    metadata, note = event.metadata, event.payload
    strings = [
        str(event.event_id),
        event.id,
        event.event_type,
        event.event_version,
        event.aggregate_id,
        metadata.service_name,
    ]
    strings += [metadata.user_id, metadata.correlation_id, *metadata.extensions, *metadata.extensions.values()]
    number, inner = note["n"]
    strings += ["note", "n", "$ref", "ref", note["note"], str(number), inner["ref"], "1"]
    return [string for string in strings if string is not None]


def matches_all_but_text(event: Event, asked: dict[str, Any]) -> bool:
    return matches(event, {name: value for name, value in asked.items() if name != "text"})


async def walked(reader: EventReader, asked: dict[str, Any], visible_user: str | None = None) -> list[EventOut]:
    """Return the events of successive pages."""
    wanted: Filter | None = Filter.model_validate(asked)
    found: list[EventOut] = []
    while wanted is not None:
        page = await reader.page(wanted, visible_user)
        found += page.events
        wanted = wanted.model_copy(update={"cursor": page.next}) if page.next else None
    return found


def is_forward(asked: Any) -> bool:
    return not ("from" in asked and "to" in asked and asked["from"] > asked["to"])


times = st.integers(-1, 7).flatmap(
    lambda hour: st.sampled_from([0, 1]).map(lambda ms: MONDAY + timedelta(hours=hour, milliseconds=ms))
)
questions: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"order": st.sampled_from(["newest", "oldest"]), "limit": st.sampled_from([1, 2, 3, 7, 50, 1000])},
    optional={
        "type": st.lists(st.sampled_from((*TYPES, "none")), min_size=1, max_size=3).map(tuple),
        "aggregate": st.sampled_from((*AGGREGATES, "none")),
        "correlation": st.sampled_from((*CORRELATIONS, "none")),
        "user": st.sampled_from((*USERS, "none")),
        "service": st.sampled_from((*SERVICES, "none")),
        "from": times,
        "to": times,
        "text": st.sampled_from(
            ("blue", "BLUE WHALE", "GRÖSSE", "47.11", ".", "order.creat.d", "$", "tenant", "zzz", "2")
        ),
    },
).filter(is_forward)


@pytest.mark.guarantee("R24", "R23")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("collection", ["events", pytest.param("event_store", marks=pytest.mark.slow)])
@hypothesis_settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=questions)
async def test_every_combination_of_filters_equals_a_plain_python_filter(
    filled: dict[str, EventReader], collection: str, asked: dict[str, Any]
) -> None:
    """The events come in order and once, with pages of any size."""
    expected = sorted(
        (event for event in EVENTS if matches(event, asked)),
        key=lambda event: (event.timestamp, event.order),
        reverse=asked["order"] == "newest",
    )
    found = await walked(filled[collection], asked)
    assert [event.event_id for event in found] == [event.event_id for event in expected]


@pytest.mark.guarantee("R26")
@pytest.mark.asyncio(loop_scope="module")
async def test_a_reader_shows_an_event_as_it_was_published(filled: dict[str, EventReader]) -> None:
    for reader in filled.values():
        for event in EVENTS[:20]:
            shown = await reader.get(event.event_id)
            assert shown is not None
            shown_fields = shown.model_dump(exclude={"stored_at", "digest", "metadata"})
            assert shown_fields == event.model_dump(exclude={"metadata"}) | {"event_id": event.event_id}
            assert shown.metadata.model_dump(exclude_unset=True) == event.metadata_fields
            assert shown.digest == event.digest.hex()


class TestPages:
    @pytest.mark.guarantee("R23")
    @pytest.mark.parametrize("order", ["newest", "oldest"])
    async def test_each_event_comes_once_while_others_are_inserted(
        self, database: Database, settings: Settings, order: str
    ) -> None:
        """The new events lie before, at and behind the reader's cursor."""
        there = some_events(300, event_type="a")
        there += some_events(200, event_type="a", timestamp=MONDAY)
        readers = await both(database, settings, there)
        done = asyncio.Event()

        async def insert() -> None:
            rng = random.Random(1)
            while not done.is_set():
                around = [MONDAY, MONDAY + timedelta(seconds=rng.randrange(-9, 9)), datetime.now(UTC)]
                await accept(database, *(an_event(event_type="a", timestamp=time) for time in around))

        inserting = asyncio.create_task(insert())
        seen = [
            event.event_id for event in await walked(readers["events"], {"order": order, "limit": 7, "type": ("a",)})
        ]
        done.set()
        await inserting
        assert len(seen) == len(set(seen))
        assert {event.event_id for event in there} <= set(seen)

    async def test_a_full_page_has_next_only_if_more_events_follow(
        self, database: Database, settings: Settings
    ) -> None:
        reader = (await both(database, settings, some_events(4)))["events"]
        assert (await reader.page(Filter(limit=4))).next is None
        first = await reader.page(Filter(limit=3))
        assert first.next is not None
        rest = await reader.page(Filter(limit=3, cursor=first.next))
        assert (len(first.events), len(rest.events), rest.next) == (3, 1, None)

    @pytest.mark.parametrize(
        "change", [{"event_type": 5}, {"payload.x": MONDAY}, {"payload": ObjectId()}], ids=["type", "time", "id"]
    )
    async def test_an_unreadable_event_is_named_and_hides_no_other(
        self, database: Database, settings: Settings, change: dict[str, Any]
    ) -> None:
        """Its document was changed in the database."""
        events = some_events(3)
        reader = (await both(database, settings, events))["events"]
        broken = events[1].event_id
        await database.events.update_one({"_id": broken}, {"$set": change})
        page = await reader.page(Filter())
        assert page.unreadable == [str(broken)]
        assert {event.event_id for event in page.events} == {events[0].event_id, events[2].event_id}
        with pytest.raises(Unavailable, match="unreadable"):
            await reader.get(broken)

    @pytest.mark.fault("A9")
    @pytest.mark.parametrize(
        "change",
        [
            {"payload": {"total": 1_000_000}},
            {"event_type": "order.paid"},
            {"aggregate_id": "order-8"},
            {"metadata.user_id": "bob"},
            {"timestamp": MONDAY},
            {"id": "another"},
            {"digest": b"\x00" * 32},
        ],
        ids=lambda change: next(iter(change)),
    )
    async def test_a_changed_event_is_shown_as_altered(
        self, database: Database, settings: Settings, change: dict[str, Any]
    ) -> None:
        """It is a valid event, so no other check finds it. The page, the single event and the export say it."""
        metadata = {"service_name": "/shop", "user_id": "ann", "extensions": {"tenant": "blue"}}
        payload = {"total": 3, "big": 2**62, "small": 1e-7, "text": "é", "$ref": 1, "list": [1.0, None, {}]}
        genuine, changed = some_events(2, metadata=metadata, payload=payload)
        readers = await both(database, settings, [genuine, changed])
        for name, reader in readers.items():
            await database[name].update_one({"_id": changed.event_id}, {"$set": change})
            page = await reader.page(Filter())
            assert {event.event_id: event.altered for event in page.events} == {
                genuine.event_id: None,
                changed.event_id: True,
            }
            streamed = [event async for event in reader.stream(Filter(), 5.0) if isinstance(event, EventOut)]
            assert {event.event_id for event in streamed if event.altered} == {changed.event_id}
            for event in (genuine, changed):
                shown = await reader.get(event.event_id)
                assert shown is not None
                assert ("altered" in shown.model_dump(mode="json")) == (event == changed)

    @pytest.mark.fault("A9")
    async def test_a_copy_under_another_identity_is_shown_as_altered(
        self, database: Database, settings: Settings
    ) -> None:
        """Its content fits the digest, and only the `_id` is not made of its source and id."""
        event = an_event()
        reader = (await both(database, settings, [event]))["event_store"]
        document = await database.event_store.find_one({"_id": event.event_id})
        assert document is not None
        copy = document | {"_id": uuid4(), "kafka": {"partition": 9, "offset": 9}}
        await database.event_store.insert_one(copy)
        page = await reader.page(Filter())
        assert {shown.event_id: shown.altered for shown in page.events} == {event.event_id: None, copy["_id"]: True}

    async def test_only_its_user_gets_an_event(self, database: Database, settings: Settings) -> None:
        event = an_event(metadata={"service_name": "/shop", "user_id": "ann"})
        for reader in (await both(database, settings, [event])).values():
            assert await reader.get(event.event_id, user="ann") is not None
            assert await reader.get(event.event_id, user="bob") is None


@pytest.mark.guarantee("R25")
async def test_a_search_out_of_time_is_cut_and_its_cursor_continues_it(database: Database, settings: Settings) -> None:
    """With almost no search time, a page looks at one more event. The pages together find every match."""
    own = settings.model_copy(update={"search_s": 1e-9})
    events = [an_event(payload={"note": "needle" if n % 10 == 0 else "hay"}) for n in range(40)]
    reader = (await both(database, own, events))["events"]
    page = await reader.page(Filter(text="needle", limit=40))
    assert page.cut
    assert page.searched_to is not None
    found = [event.event_id for event in await walked(reader, {"text": "needle", "limit": 40})]
    assert sorted(found) == sorted(event.event_id for event in events[::10])


QUESTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "time": {"from": MONDAY, "to": MONDAY + timedelta(hours=1)},
    "type": {"type": ("a",)},
    "types": {"type": ("a", "b", "c")},
    "aggregate": {"aggregate": "x"},
    "correlation": {"correlation": "x"},
    "user": {"user": "x"},
    "service": {"service": "x"},
    "user and type": {"user": "x", "type": ("a", "b")},
    "type and service in a range": {"type": ("a",), "service": "x", "from": MONDAY},
    "everything": {"type": ("a",), "service": "x", "user": "x", "aggregate": "x", "correlation": "x", "to": MONDAY},
    "text of a user": {"user": "x", "text": "a"},
}


@pytest.mark.guarantee("R24", "R25")
@pytest.mark.parametrize("collection", ["events", "event_store"])
async def test_every_query_is_an_ordered_index_scan(settings: Settings, collection: str) -> None:
    """No query of a page reads the whole collection, and no query sorts: the index has the order of pages."""
    async with listened(settings) as (database, commands):
        reader = (await both(database, settings, EVENTS))[collection]
        cursor = PageCursor(MONDAY + timedelta(minutes=30), 7)
        for asked in QUESTIONS.values():
            for order in ("newest", "oldest"):
                wanted = Filter.model_validate(asked | {"order": order})
                for page in (wanted, wanted.with_cursor(cursor)):
                    commands.sent.clear()
                    await reader.page(page)
                    finds = [sent for sent in commands.sent if sent.command_name == "find"]
                    assert finds
                    for find in finds:
                        explanation = await explained(database, find)
                        names = {stage["stage"] for stage in stages(explanation["queryPlanner"])}
                        assert "IXSCAN" in names
                        assert not {"COLLSCAN", "SORT"} & names, asked


def many(number: int, **changes: Any) -> list[Event]:
    """Make events with increasing times."""
    return [an_event(timestamp=MONDAY + timedelta(seconds=second), **changes) for second in range(number)]


@pytest.mark.guarantee("R25")
class TestSearch:
    """Pages that look through unwanted events."""

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    async def test_a_filter_without_matches_is_cut_after_its_search_time(
        self, database: Database, settings: Settings, order: str
    ) -> None:
        """The pages together look at every event once, as for a search for text."""
        own = settings.model_copy(update={"search_s": 1e-9, "search_keys": 4})
        wanted = an_event(event_type="a", metadata={"service_name": "/rare"}, timestamp=MONDAY + timedelta(seconds=15))
        reader = (await both(database, own, [*many(30, event_type="a"), wanted]))["events"]
        asked: dict[str, Any] = {"type": ("a",), "service": "/rare", "order": order}
        first = await reader.page(Filter.model_validate(asked))
        assert (first.events, first.cut) == ([], True)
        assert first.searched_to == MONDAY + timedelta(seconds=26 if order == "newest" else 3)
        assert [event.event_id for event in await walked(reader, asked)] == [wanted.event_id]

    async def test_a_chunk_bounds_the_documents_that_the_server_reads(self, settings: Settings) -> None:
        """The number of unwanted events does not matter."""
        own = settings.model_copy(update={"search_keys": 20})
        async with listened(own) as (database, commands):
            reader = (await both(database, own, many(100, event_type="a")))["events"]
            commands.sent.clear()
            await reader.page(Filter.model_validate({"type": ("a",), "service": "/none"}))
            finds = [sent for sent in commands.sent if sent.command_name == "find" and "skip" not in sent.command]
            looked = [
                looked_at((await explained(database, find))["executionStats"], "totalDocsExamined") for find in finds
            ]
        assert looked == [20, 41, 41]  # a later chunk also reads the document at its start

    async def test_a_timeout_of_a_query_names_a_remedy(self, database: Database, settings: Settings) -> None:
        reader = (await both(database, settings, some_events(1)))["events"]
        async with failing(database, "tests", times=9, failCommands=["find"], errorCode=50):
            with pytest.raises(Unavailable, match="narrow the time or the filters"):
                await reader.page(Filter())


@pytest.mark.guarantee("R25")
class TestBytes:
    async def test_a_page_ends_at_its_bytes_and_has_at_least_one_event(
        self, database: Database, settings: Settings
    ) -> None:
        events = many(10, payload={"text": "x" * 1000})
        for size, pages in ((1, 10), (3000, 4), (10**6, 1)):
            own = settings.model_copy(update={"page_bytes": size})
            reader = EventReader(database["events"], own)
            if size == 1:
                await both(database, own, events)
            page, seen = await reader.page(Filter(limit=1000)), 1
            found = page.events
            while page.next:
                page, seen = await reader.page(Filter(limit=1000, cursor=page.next)), seen + 1
                found = found + page.events
            assert seen == pages
            assert not page.cut
            assert [event.event_id for event in found] == [event.event_id for event in reversed(events)]


async def test_unreadable_events_end_no_page_early(database: Database, settings: Settings) -> None:
    """A page names an unreadable event once, and shows the events behind it."""
    events = many(12)
    readers = await both(database, settings, events)
    broken = events[3:9]
    ids = {"_id": {"$in": [event.event_id for event in broken]}}
    await database.events.update_many(ids, {"$set": {"event_type": 5}})
    wanted: Filter | None = Filter(limit=4)
    shown, named = [], []
    while wanted is not None:
        page = await readers["events"].page(wanted)
        shown += [event.event_id for event in page.events]
        named += page.unreadable
        wanted = Filter(limit=4, cursor=page.next) if page.next else None
    assert shown == [event.event_id for event in reversed(events) if event not in broken]
    assert named == [str(event.event_id) for event in reversed(broken)]


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("asked", [{"aggregate": "shared"}, {"correlation": "shared"}, {"type": ("shared",)}], ids=str)
async def test_queries_of_one_user_never_scan_events_of_other_users(settings: Settings, asked: dict[str, Any]) -> None:
    """This holds for pages, counts and types.

    Otherwise the time of an answer would tell a caller the number of events that other users have in an aggregate, a
    correlation or a type.
    """
    metadata = {"service_name": "/shop", "correlation_id": "shared"}
    shared: dict[str, Any] = {"event_type": "shared", "aggregate_id": "shared", "timestamp": MONDAY}
    own = some_events(5, **shared, metadata=metadata | {"user_id": "ann"})
    others = some_events(300, **shared, metadata=metadata | {"user_id": "bob"})
    ann, range_ = Principal.of("ann", []), {"from": MONDAY, "to": MONDAY + timedelta(hours=1)}
    async with listened(settings) as (database, commands):
        readers, statistics = (
            await both(database, settings, own + others),
            EventStatistics(database["events"], settings),
        )
        query = Query(readers["events"], statistics, LiveEvents(database["events"], settings))
        for operation, parameters in (
            (operations.page, Filter.model_validate(asked | {"user": "ann"})),
            (operations.statistics, Ranged.model_validate(asked | range_ | {"user": "ann"})),
            (operations.types, Conditions.model_validate(asked | {"user": "ann"})),
        ):
            commands.sent.clear()
            await operation(Call(query, ann, parameters, None, Request({"type": "http"})))
            sent = [command for command in commands.sent if command.command_name in ("find", "aggregate")]
            assert sent
            for command in sent:
                explanation = await explained(database, command)
                assert looked_at(explanation, "totalKeysExamined") <= len(own) + 1
                assert looked_at(explanation, "totalDocsExamined") <= len(own)


@pytest.mark.guarantee("R25")
async def test_every_filter_has_its_index_and_no_index_is_a_prefix_of_another(database: Database) -> None:
    for name, filters in INDEXED_FILTERS.items():
        indexes = await database[name].index_information()
        keys = [[field for field, _ in index["key"]] for index in indexes.values()]
        assert all([FIELDS[filter_], "timestamp", "order"] in keys for filter_ in filters)
        assert not any(a != b and b[: len(a)] == a for a in keys for b in keys)
    assert set(INDEXED_FILTERS["events"]) == set(FIELDS)
