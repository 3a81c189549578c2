"""Events with an equal time and an equal order, as two publishers can give them: no page divides them."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dev.stack import Stack
from tests.contract.test_pages import both
from tests.helpers import an_event, settings_of
from twofold.errors import Unavailable
from twofold.event.model import Event
from twofold.mongo.client import Database, open_database
from twofold.query.filters import Filter
from twofold.read import equal_keys, pages
from twofold.read.admin_events import AdminEventsRepository, Browse
from twofold.read.models import EventOut
from twofold.read.pages import EventReader
from twofold.settings import Settings
from twofold.setup.run import set_up

pytestmark = pytest.mark.guarantee("R23", "R25")

MONDAY = datetime(2026, 7, 6, tzinfo=UTC)
LARGEST = 2**63 - 1
ORDERS = (0, 1, 2**53, 2**53 + 1, LARGEST - 1, LARGEST)


def crowded(number: int, seed: int = 5) -> list[Event]:
    """Make events of few pairs of time and order. Most pairs have several events."""
    rng = random.Random(seed)
    return [
        an_event(
            event_type=rng.choice(("a", "b")),
            timestamp=MONDAY + timedelta(milliseconds=rng.randrange(4)),
            order=rng.choice(ORDERS),
            aggregate_id=rng.choice(("x", "y")),
            metadata={"service_name": rng.choice(("/s", "/t")), "user_id": rng.choice(("ann", "bob"))},
            payload={"note": rng.choice(("needle", "hay", "hay"))},
        )
        for _ in range(number)
    ]


EVENTS = crowded(120)

Readers = dict[str, tuple[EventReader, AdminEventsRepository]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def readers(stack: Stack) -> AsyncIterator[Readers]:
    """Return the readers of `events`: usual ones, and with almost no search time, chunk or page."""
    own = settings_of(stack, mongodb_database=f"test_{uuid4().hex}", kafka_topic=f"test.{uuid4()}")
    changes: dict[str, dict[str, Any]] = {
        "usual": {},
        "cut": {"search_s": 1e-9, "search_keys": 3},
        "small": {"search_keys": 2, "page_bytes": 1},
    }
    await set_up(own, {})
    async with open_database(own, "tests") as database:
        await both(database, own, EVENTS)
        made: Readers = {}
        for name, change in changes.items():
            settings = own.model_copy(update=change)
            made[name] = EventReader(database["events"], settings), AdminEventsRepository(database, settings)
        yield made
        await database.client.drop_database(database.name)


def key(event: Any, sort: str) -> tuple[Any, ...]:
    first = {"timestamp": "", "type": event.event_type, "service": event.metadata.service_name}[sort]
    return first, event.timestamp, event.order


questions: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "order": st.sampled_from(["newest", "oldest"]),
        "limit": st.sampled_from([1, 2, 3, 7, 50]),
        "sort": st.sampled_from(["timestamp", "type", "service"]),
    },
    optional={
        "type": st.sampled_from([("a",), ("a", "b")]),
        "aggregate": st.just("x"),
        "user": st.just("ann"),
        "service": st.just("/s"),
        "text": st.just("needle"),
        "from": st.just(MONDAY + timedelta(milliseconds=1)),
        "to": st.just(MONDAY + timedelta(milliseconds=3)),
    },
)


def matches(event: Event, asked: dict[str, Any]) -> bool:
    return (
        event.event_type in asked.get("type", ("a", "b"))
        and event.aggregate_id == asked.get("aggregate", event.aggregate_id)
        and event.metadata.user_id == asked.get("user", event.metadata.user_id)
        and event.metadata.service_name == asked.get("service", event.metadata.service_name)
        and event.payload["note"] == asked.get("text", event.payload["note"])
        and asked.get("from", MONDAY) <= event.timestamp < asked.get("to", datetime.max.replace(tzinfo=UTC))
    )


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", ["usual", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("cut", "small"))])
@hypothesis_settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=questions, data=st.data())
async def test_each_event_comes_once_with_pages_of_any_size(
    readers: Readers, kind: str, asked: dict[str, Any], data: st.DataObject
) -> None:
    """A page may end by its number, its bytes or its time. Each page has a new limit."""
    _, admin = readers[kind]
    found: list[EventOut] = []
    cursor: str | None = None
    while True:
        limit = data.draw(st.sampled_from([1, 2, 3, 7, 50]), "limit")
        page = await admin.browse(Browse.model_validate(asked | {"limit": limit, "cursor": cursor}))
        if found and page.events:
            assert key(found[-1], asked["sort"]) != key(page.events[0], asked["sort"])
        found += page.events
        cursor = page.next
        if cursor is None:
            break
    expected = [event for event in EVENTS if matches(event, asked)]
    assert Counter(event.event_id for event in found) == Counter(event.event_id for event in expected)
    keys = [key(event, asked["sort"]) for event in found]
    assert keys == sorted(keys, reverse=asked["order"] == "newest")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
async def test_a_stream_has_each_event_once(
    readers: Readers, monkeypatch: pytest.MonkeyPatch, order: str, chunk: int
) -> None:
    monkeypatch.setattr(pages, "STREAM_CHUNK", chunk)
    reader, _ = readers["usual"]
    found = [item async for item in reader.stream(Filter.model_validate({"order": order}), 10.0)]
    assert Counter(item.event_id for item in found) == Counter(event.event_id for event in EVENTS)
    keys = [key(item, "timestamp") for item in found]
    assert keys == sorted(keys, reverse=order == "newest")


def alike(number: int, **changes: Any) -> list[Event]:
    return [an_event(timestamp=MONDAY, order=7, aggregate_id="x", **changes) for _ in range(number)]


@pytest.mark.parametrize("wanted", [Filter(limit=3), Browse.model_validate({"limit": 3, "sort": "type"})])
async def test_a_full_page_has_up_to_a_thousand_events_besides(
    database: Database, settings: Settings, wanted: Filter
) -> None:
    """Beyond the bound the page is an error, because a cursor could not divide the events."""
    reader = (await both(database, settings, alike(3 + equal_keys.MAX_EQUAL)))["events"]
    admin = AdminEventsRepository(database, settings)
    browse = Browse.model_validate(wanted.model_dump(by_alias=True))
    page = await admin.browse(browse)
    assert len({event.event_id for event in page.events}) == 3 + equal_keys.MAX_EQUAL
    assert page.next is not None
    assert (await admin.browse(browse.model_copy(update={"cursor": page.next}))).events == []
    await both(database, settings, alike(1))
    with pytest.raises(Unavailable, match="too many events have the time"):
        await admin.browse(browse)
    assert len((await reader.page(Filter(limit=1000, types=("none",)))).events) == 0


async def test_the_events_besides_are_bounded_in_bytes(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = (await both(database, settings, alike(8, payload={"text": "x" * 1000})))["events"]
    monkeypatch.setattr(equal_keys, "MAX_EQUAL_BYTES", 10_000)
    assert len((await reader.page(Filter(limit=2))).events) == 8
    monkeypatch.setattr(equal_keys, "MAX_EQUAL_BYTES", 5_000)
    with pytest.raises(Unavailable, match="too many events"):
        await reader.page(Filter(limit=2))


async def test_the_timeline_of_an_event_has_the_events_of_its_order(database: Database, settings: Settings) -> None:
    events = [*alike(4), an_event(timestamp=MONDAY, order=6, aggregate_id="x")]
    events.append(an_event(timestamp=MONDAY, order=8, aggregate_id="x"))
    await both(database, settings, events)
    detail = await AdminEventsRepository(database, settings).detail(events[1].event_id)
    assert detail is not None
    assert detail.complete
    assert [related.order for related in detail.timeline] == [6, 7, 7, 7, 7, 8]
    assert {related.event_id for related in detail.timeline} == {event.event_id for event in events}
    assert {related.event_id for related in detail.timeline if not related.related_by} == {events[1].event_id}


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("changed", [None, "7", -1, 1.5, "absent"], ids=str)
async def test_an_event_without_a_valid_order_is_unreadable_and_hides_no_other(
    database: Database, settings: Settings, changed: Any, order: str
) -> None:
    """Its document was changed in the database, as with a changed `timestamp`."""
    events = [an_event(timestamp=MONDAY, order=number) for number in range(6)]
    readers = await both(database, settings, events)
    change = {"$unset": {"order": 1}} if changed == "absent" else {"$set": {"order": changed}}
    await database.events.update_one({"_id": events[3].event_id}, change)
    shown: list[UUID] = []
    named: set[str] = set()
    wanted: Filter | None = Filter.model_validate({"order": order, "limit": 2})
    while wanted is not None:
        page = await readers["events"].page(wanted)
        shown += [event.event_id for event in page.events]
        named |= {*page.unreadable}
        wanted = wanted.model_copy(update={"cursor": page.next}) if page.next else None
    rest = [event.event_id for event in events if event is not events[3]]
    assert shown == (rest if order == "oldest" else rest[::-1])
    assert named == {str(events[3].event_id)}
    with pytest.raises(Unavailable, match="unreadable"):
        await readers["events"].get(events[3].event_id)
