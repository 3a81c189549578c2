"""`Store` and its deliveries, on real servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from dev.process.child import free_port
from tests.helpers import (
    Commands,
    Raw,
    altered,
    an_event,
    delivered,
    failing,
    listened,
    plain_record,
    some_events,
)
from twofold.errors import Unavailable
from twofold.mongo.client import Database, open_database
from twofold.settings import Settings
from twofold.storage.event_store import EventStore
from twofold.write.store import Store

pytestmark = pytest.mark.guarantee("R8")


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def store(database: Database, settings: Settings) -> Store:
    return Store(database, settings, clock=now)


@asynccontextmanager
async def counted(settings: Settings) -> AsyncIterator[tuple[Store, Commands]]:
    async with listened(settings) as (database, commands):
        yield Store(database, settings, clock=now), commands


async def take_all(store: Store, requests: list[tuple[Raw, bytes]]) -> list[BaseException | None]:
    """Take the deliveries at once, every delivery in a request of its own."""
    return await asyncio.gather(*(store.take(*request) for request in requests), return_exceptions=True)


async def logged(database: Database) -> int:
    return await database["event_store"].count_documents({})


async def dead_letters(database: Database) -> list[dict[str, Any]]:
    return [document async for document in database["dead_letters"].find()]


class TestEvents:
    @pytest.mark.guarantee("R5", "R26")
    async def test_an_event_is_in_the_log_unchanged(self, store: Store, database: Database) -> None:
        """Its place in Kafka is stored for investigations."""
        event = an_event()
        await store.take(*delivered(event, partition=2, offset=17))
        assert await EventStore(database).get(event.event_id) == event
        document = await database["event_store"].find_one()
        assert document is not None
        assert document["kafka"] == {"partition": 2, "offset": 17}
        assert document["digest"] == event.digest

    @pytest.mark.guarantee("G2")
    async def test_a_redelivery_changes_nothing(self, store: Store, database: Database) -> None:
        event = an_event()
        await store.take(*delivered(event, offset=1))
        before = await database["event_store"].find_one()
        await store.take(*delivered(event, offset=1))
        await store.take(*delivered(event, offset=9))
        assert await database["event_store"].find_one() == before
        assert (await logged(database), await dead_letters(database)) == (1, [])

    @pytest.mark.guarantee("G2")
    async def test_many_deliveries_of_one_event_at_once_are_one_event(self, store: Store, database: Database) -> None:
        event = an_event()
        assert set(await take_all(store, [delivered(event, offset=n) for n in range(50)])) == {None}
        assert (await logged(database), await dead_letters(database)) == (1, [])


@pytest.mark.guarantee("G4", "R10")
class TestPoison:
    @pytest.mark.guarantee("R5")
    async def test_an_altered_event_is_a_dead_letter(self, store: Store, database: Database) -> None:
        """Its digest does not fit its content."""
        headers, _ = delivered(an_event(), partition=3, offset=4)
        await store.take(headers, b'{"total":4}')
        await store.take(headers, b'{"total":4}')
        (dead_letter,) = await dead_letters(database)
        assert (dead_letter["reason"], dead_letter["body"], dead_letter["times"]) == (
            "digest-mismatch",
            b'{"total":4}',
            2,
        )
        assert dead_letter["kafka"] == {"partition": 3, "offset": 4}
        assert await logged(database) == 0

    @pytest.mark.guarantee("G2")
    async def test_another_event_under_a_known_id_is_a_dead_letter(self, store: Store, database: Database) -> None:
        """Neither event is lost silently."""
        event = an_event()
        other = altered(event)
        await store.take(*delivered(event))
        await store.take(*delivered(other))
        (dead_letter,) = await dead_letters(database)
        assert (dead_letter["reason"], dead_letter["digest"]) == ("identity-conflict", other.digest)
        assert await EventStore(database).get(event.event_id) == event

    @pytest.mark.parametrize(
        "body",
        [b"", b"not json", b"\xff\xfe", b"[]", b"null", b'{"a":NaN}', b'{"a":1,"a":2}', b"[" * 100_000],
        ids=["nothing", "text", "bytes", "array", "null", "nan", "twice", "deep"],
    )
    async def test_a_plain_record_is_a_dead_letter_with_its_bytes(
        self, store: Store, database: Database, body: bytes
    ) -> None:
        await store.take(*plain_record(body, partition=1, offset=5))
        (dead_letter,) = await dead_letters(database)
        assert (dead_letter["body"], dead_letter["kafka"]) == (body, {"partition": 1, "offset": 5})

    @pytest.mark.parametrize(
        "body",
        [b'{"a":"\\ud800"}', b'{"a":' * 101 + b"1" + b"}" * 101, b'{"a":18446744073709551616}', b'{"a\\u0000b":1}'],
        ids=["surrogate", "depth", "integer", "nul"],
    )
    async def test_an_event_that_cannot_be_stored_is_a_dead_letter(
        self, store: Store, database: Database, body: bytes
    ) -> None:
        headers, _ = delivered(an_event())
        await store.take(headers, body)
        (dead_letter,) = await dead_letters(database)
        assert (dead_letter["body"], dead_letter["reason"]) == (body, "invalid")
        assert await logged(database) == 0

    @pytest.mark.parametrize(
        "broken",
        [
            [(b"ce-id", b"\xff\xfe")],
            [(b"content-type", b"application/json; charset=utf-16")],
            [(b"ce-time", b"yesterday")],
            [(b"ce-specversion", b"0.3")],
            [(b"ce-twofolddigest", b"00")],
        ],
    )
    async def test_broken_headers_are_a_dead_letter(self, store: Store, database: Database, broken: Raw) -> None:
        headers, body = delivered(an_event())
        await store.take(list((dict(headers) | dict(broken)).items()), body)
        assert len(await dead_letters(database)) == 1

    @pytest.mark.guarantee("R7")
    async def test_poison_among_500_deliveries_affects_only_itself(
        self, settings: Settings, database: Database
    ) -> None:
        """Beside a duplicate, a conflict and invalid events, 494 events are new, in at most 50 inserts."""
        there, other = some_events(2)
        good = some_events(494)
        headers, _ = delivered(an_event(), offset=1)
        odd = [
            delivered(there),
            delivered(altered(other)),
            plain_record(b"poison", offset=2),
            (headers, b'{"a":"\\ud800"}'),
            (headers, b'{"a":1}'),
            delivered(good[0]),
        ]
        async with counted(settings) as (store, commands):
            await take_all(store, [delivered(there), delivered(other)])
            requests = [delivered(event) for event in good]
            answers = await take_all(store, requests[:250] + odd + requests[250:])
            assert commands.count("insert") <= 50
        assert set(answers) == {None}
        assert await logged(database) == 496
        reasons = sorted(dead_letter["reason"] for dead_letter in await dead_letters(database))
        assert reasons == ["digest-mismatch", "identity-conflict", "invalid", "malformed"]


@pytest.mark.guarantee("G1", "R6")
class TestTrouble:
    async def test_500_concurrent_deliveries_cost_at_most_50_inserts(
        self, settings: Settings, database: Database
    ) -> None:
        async with counted(settings) as (store, commands):
            assert set(await take_all(store, [delivered(event) for event in some_events(500)])) == {None}
        assert commands.count("insert") <= 50
        assert await logged(database) == 500

    @pytest.mark.parametrize("with_a_duplicate", [False, True])
    async def test_a_write_concern_error_acknowledges_no_delivery(
        self, settings: Settings, database: Database, with_a_duplicate: bool
    ) -> None:
        """KafkaSource delivers them again, and they are duplicates then."""
        name, there = settings.mongodb_database, delivered(an_event())
        requests = [delivered(event) for event in some_events(20)] + [there] * with_a_duplicate
        async with open_database(settings, name) as own:
            store = Store(own, settings, clock=now)
            await store.take(*there)
            timed_out = {"code": 64, "errmsg": "waiting for replication timed out"}
            async with failing(database, name, writeConcernError=timed_out):
                assert {type(answer) for answer in await take_all(store, requests)} == {Unavailable}
            assert set(await take_all(store, requests)) == {None}
        assert (await logged(database), await dead_letters(database)) == (21, [])

    async def test_without_mongodb_neither_event_nor_poison_is_acknowledged(self, settings: Settings) -> None:
        """Poison is acknowledged when its dead letter is durable."""
        uri = SecretStr(f"mongodb://127.0.0.1:{free_port()}")
        unreachable = settings.model_copy(update={"mongodb_uri": uri, "mongodb_timeout_s": 0.5})
        async with open_database(unreachable, "tests") as database:
            answers = await take_all(
                Store(database, unreachable, clock=now), [delivered(an_event()), plain_record(b"poison")]
            )
        assert {type(answer) for answer in answers} == {Unavailable}

    @pytest.mark.guarantee("G4")
    async def test_a_dead_letter_that_is_not_durable_is_not_acknowledged(
        self, settings: Settings, database: Database
    ) -> None:
        name = settings.mongodb_database
        timed_out = {"code": 64, "errmsg": "waiting for replication timed out"}
        async with open_database(settings, name) as own:
            store = Store(own, settings, clock=now)
            async with failing(database, name, failCommands=["update"], writeConcernError=timed_out):
                with pytest.raises(Unavailable):
                    await store.take(*plain_record(b"poison"))
            await store.take(*plain_record(b"poison"))
        assert len(await dead_letters(database)) == 1

    async def test_a_full_queue_refuses_and_stores_nothing(self, settings: Settings, database: Database) -> None:
        name = settings.mongodb_database
        small = settings.model_copy(update={"group_commit_capacity": 5, "group_commit_events": 1})
        slow = failing(database, name, blockConnection=True, blockTimeMS=500)
        async with open_database(small, name) as own, slow:
            answers = await take_all(Store(own, small, clock=now), [delivered(event) for event in some_events(100)])
        assert {type(answer) for answer in answers} == {type(None), Unavailable}
        assert await logged(database) == answers.count(None)

    async def test_a_queue_full_of_bytes_refuses_and_stores_nothing(
        self, settings: Settings, database: Database
    ) -> None:
        """A few large events can exceed the memory."""
        name = settings.mongodb_database
        small = settings.model_copy(update={"group_commit_capacity_bytes": 1_000_000})
        slow = failing(database, name, blockConnection=True, blockTimeMS=500)
        events = some_events(20, payload={"text": "x" * 100_000})
        async with open_database(small, name) as own, slow:
            answers = await take_all(Store(own, small, clock=now), [delivered(event) for event in events])
        assert {type(answer) for answer in answers} == {type(None), Unavailable}
        assert await logged(database) == answers.count(None) == 4, (
            "a delivery needs the bytes of its body and its document"
        )


@pytest.mark.guarantee("G8")
class TestReplay:
    async def test_a_known_event_writes_nothing(self, store: Store, database: Database) -> None:
        event = an_event()
        await store.take(*delivered(event))
        before = await database["event_store"].find_one()
        await store.take(*delivered(event, offset=5, replayid="r-1"))
        assert await database["event_store"].find_one() == before
        assert await dead_letters(database) == []

    async def test_an_unknown_event_is_a_dead_letter(self, store: Store, database: Database) -> None:
        """A replay makes no new events, whatever is in its topic."""
        await store.take(*delivered(an_event(), replayid="r-1"))
        (dead_letter,) = await dead_letters(database)
        assert dead_letter["reason"] == "unknown-replay"
        assert await logged(database) == 0

    async def test_other_content_under_a_known_id_is_a_dead_letter(self, store: Store, database: Database) -> None:
        event = an_event()
        await store.take(*delivered(event))
        await store.take(*delivered(altered(event), replayid="r-1"))
        (dead_letter,) = await dead_letters(database)
        assert dead_letter["reason"] == "identity-conflict"
