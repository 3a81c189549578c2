"""The client, the insert and the documents on a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from pymongo import ReadPreference

from dev.process.child import free_port
from tests.helpers import Commands, EncodedDocument, an_event, failing, listened, log, some_events
from twofold.errors import Conflict, Invalid, Unavailable
from twofold.event.model import Event
from twofold.mongo.client import Database, RawDocument, open_database
from twofold.mongo.documents import encode_document
from twofold.mongo.insert import insert_once
from twofold.mongo.safe_time import server_time
from twofold.settings import Settings
from twofold.storage.event_store import EventStore

pytestmark = pytest.mark.guarantee("G2")


def document(event: Event) -> RawDocument:
    return encode_document(event.to_document())


async def insert(database: Database, *events: Event) -> list[object]:
    new = [EncodedDocument(event.event_id, event.digest, document(event)) for event in events]
    return list(await insert_once(database["event_store"], new))


@pytest.fixture
async def seen(settings: Settings) -> AsyncIterator[tuple[Database, Commands]]:
    async with listened(settings) as (database, commands):
        yield database, commands


@pytest.mark.guarantee("G1")
async def test_the_uri_cannot_weaken_the_concerns(settings: Settings) -> None:
    """The code sets write concern, read concern and read preference."""
    weak = settings.mongodb_uri.get_secret_value() + "&w=1&readConcernLevel=local&readPreference=secondary"
    async with open_database(settings.model_copy(update={"mongodb_uri": SecretStr(weak)}), "tests") as database:
        assert database.write_concern.document == {"w": "majority"}
        assert database.read_concern.level == "majority"
        assert database.read_preference == ReadPreference.PRIMARY


@pytest.mark.guarantee("G1")
async def test_an_insert_asks_for_a_majority_and_names_a_time_limit(settings: Settings, database: Database) -> None:
    """The limit stops the write in the server too, so no write continues long after a 503."""
    await database.command("profile", 2)
    await insert(database, an_event())
    await database.command("profile", 0)
    noted = await database["system.profile"].find_one({"op": "insert"})
    assert noted is not None
    assert noted["command"]["writeConcern"]["w"] == "majority"
    assert 0 < noted["command"]["maxTimeMS"] <= settings.mongodb_timeout_s * 1000


async def test_each_document_has_its_own_result(database: Database) -> None:
    """An equal event that is stored, or that stands earlier in the same write, is a duplicate."""
    old, new, twice = some_events(3)
    await insert(database, old)
    assert await insert(database, new, old, twice, twice) == ["new", "duplicate", "new", "duplicate"]
    assert await database["event_store"].count_documents({}) == 3


async def test_an_insert_changes_no_stored_document(database: Database) -> None:
    event = an_event()
    await insert(database, event)
    other = event.model_copy(update={"payload": {"other": True}})
    (result,) = await insert(database, other)
    assert isinstance(result, Conflict)
    assert await EventStore(database).get(event.event_id) == event


@pytest.mark.guarantee("R7")
async def test_many_documents_need_one_command(seen: tuple[Database, Commands]) -> None:
    database, commands = seen
    await insert(database, *some_events(200))
    assert commands.count("insert") == 1


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("with_a_duplicate", [False, True])
async def test_a_write_concern_error_acknowledges_no_document(
    settings: Settings, database: Database, with_a_duplicate: bool
) -> None:
    """A duplicate in the same write is not acknowledged either: its error arrives with the write-concern error."""
    there, new = some_events(2)
    await insert(database, there)
    name = settings.mongodb_database
    async with open_database(settings, name) as failing_for:
        timed_out = {"code": 64, "errmsg": "waiting for replication timed out"}
        async with failing(database, name, writeConcernError=timed_out):
            with pytest.raises(Unavailable, match="durable"):
                await insert(failing_for, *([there] if with_a_duplicate else []), new)
        assert await insert(failing_for, new) == ["duplicate"], "a second attempt finds the event"


async def test_a_broken_connection_neither_loses_nor_doubles_an_event(settings: Settings, database: Database) -> None:
    """The driver retries the same write."""
    name = settings.mongodb_database
    async with open_database(settings, name) as once, failing(database, name, closeConnection=True):
        assert await insert(once, *some_events(3)) == ["new"] * 3
    assert await database["event_store"].count_documents({}) == 3


async def test_a_missing_server_raises_unavailable(settings: Settings) -> None:
    unreachable = {"mongodb_uri": SecretStr(f"mongodb://127.0.0.1:{free_port()}/"), "mongodb_timeout_s": 0.3}
    async with open_database(settings.model_copy(update=unreachable), "tests") as database:
        with pytest.raises(Unavailable, match="MongoDB"):
            await insert(database, an_event())
        with pytest.raises(Unavailable, match="MongoDB"):
            await server_time(database)


@pytest.mark.guarantee("R7")
@pytest.mark.parametrize("value", ["\ud800", 2**64, object()])
def test_a_value_that_bson_cannot_encode_is_rejected_before_the_insert(value: object) -> None:
    with pytest.raises(Invalid, match="cannot store"):
        encode_document({"payload": {"value": value}})


@pytest.mark.guarantee("R26")
@pytest.mark.parametrize(
    "payload",
    [
        {"$ref": "things", "$id": 1},
        {"inner": [{"$ref": "things", "$id": 1, "$db": "other", "more": True}]},
        {"$set": {"a.b": 1, "": 2}},
        {"big": 2**63 - 1, "small": -(2**63), "float": 1e300, "whole": 2.0, "none": None, "text": "\u2028é😀"},
    ],
)
async def test_an_odd_payload_is_read_back_equal(database: Database, payload: dict[str, object]) -> None:
    """Names with a meaning for MongoDB or for its driver have no meaning in a payload."""
    event = an_event(payload=payload)
    await insert(database, event)
    found = await EventStore(database).get(event.event_id)
    assert found == event
    assert found.digest == event.digest


@pytest.mark.guarantee("G3")
async def test_the_server_numbers_the_log_in_the_order_of_inserts(database: Database) -> None:
    """`seq` is unique and increasing, also under concurrent inserts."""
    await asyncio.gather(*(log(database, *some_events(20)) for _ in range(10)))
    before = [document["seq"] async for document in database["event_store"].find().sort("seq")]
    await log(database, *some_events(1))
    after = [document["seq"] async for document in database["event_store"].find().sort("seq")]
    assert len(set(before)) == 200
    assert after[:-1] == before, "the newest event has the highest number"
