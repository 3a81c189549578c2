"""Deleting events from `events` on a real server: only with the event in the log, and with a record."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from dev.stack import Stack
from tests.helpers import accept, altered, an_event, log, settings_of, some_events
from twofold.errors import Malformed, NotFound, NotInLog, Unavailable
from twofold.event.model import Event
from twofold.mongo.client import Database, Document, open_database
from twofold.mongo.documents import undecoded
from twofold.mongo.safe_time import server_time
from twofold.settings import Settings
from twofold.storage.archive import Archive, Deletion
from twofold.storage.checkpoints import Checkpoints
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.outbox import Outbox
from twofold.write.reconcile import reconcile

pytestmark = pytest.mark.guarantee("G1", "G5")

DAY = timedelta(days=1)


@pytest.fixture
def archive(database: Database) -> Archive:
    return Archive(database)


async def confirmed(database: Database, number: int = 1, **changes: object) -> list[Event]:
    """Insert new events into `events` and the log, and confirm them."""
    events = some_events(number, **changes)
    await accept(database, *events)
    await log(database, *events)
    await Outbox(database).confirm([event.event_id for event in events], DAY)
    return events


async def archived(database: Database) -> list[Document]:
    return [document async for document in database["archive"].find()]


async def in_events(database: Database, event_id: UUID) -> Document | None:
    return await database["events"].find_one({"_id": event_id})


class TestDeleted:
    async def test_an_event_moves_from_events_to_the_archive(self, database: Database, archive: Archive) -> None:
        """The archive has the whole event, the name, the server's time and the reason. The log keeps the event."""
        payload = {"by": {"$ref": "c", "$id": 1, "$db": None}, "list": [{"$ref": "c", "$id": 2}], "n": 3}
        (event,) = await confirmed(database, payload=payload)
        before = await in_events(database, event.event_id)
        earliest = await server_time(database)
        deletion = await archive.delete(event.event_id, "Ada", "published by mistake")
        (kept,) = await archived(database)
        assert await in_events(database, event.event_id) is None
        assert kept["event"] == before
        assert (kept["event_id"], kept["event_type"]) == (event.event_id, event.event_type)
        assert (kept["deleted_by"], kept["reason"]) == ("Ada", "published by mistake")
        assert earliest <= kept["deleted_at"] <= await server_time(database)
        assert await EventStore(database).get(event.event_id) == event
        assert (await archive.deletions(10)).deletions == [deletion]

    async def test_an_unknown_event_is_not_found(self, database: Database, archive: Archive) -> None:
        """It was deleted before, or never existed."""
        (event,) = await confirmed(database)
        await archive.delete(event.event_id, "Ada", "once")
        for event_id in (event.event_id, uuid4()):
            with pytest.raises(NotFound):
                await archive.delete(event_id, "Ada", "again")
        assert len(await archived(database)) == 1

    async def test_two_deletions_at_once_delete_an_event_once(self, database: Database, archive: Archive) -> None:
        (event,) = await confirmed(database)
        outcomes = await asyncio.gather(
            *(archive.delete(event.event_id, f"admin {number}", "a race") for number in range(6)),
            return_exceptions=True,
        )
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
        assert all(isinstance(outcome, NotFound | NotInLog) for outcome in outcomes if isinstance(outcome, Exception))
        assert len(await archived(database)) == 1

    async def test_deletions_are_listed_in_pages_newest_first(self, database: Database, archive: Archive) -> None:
        events = await confirmed(database, 5)
        made = [await archive.delete(event.event_id, "Ada", "tidying up") for event in events]
        first = await archive.deletions(3)
        rest = await archive.deletions(3, first.next)
        assert (len(first.deletions), rest.next) == (3, None)
        listed = first.deletions + rest.deletions
        assert {deletion.deletion_id for deletion in listed} == {deletion.deletion_id for deletion in made}
        assert [deletion.deleted_at for deletion in listed] == sorted(
            (deletion.deleted_at for deletion in made), reverse=True
        )

    @pytest.mark.parametrize("cursor", ["x", "AAAA", '{"$gt":1}', "é", "A" * 34])
    async def test_an_invalid_cursor_is_rejected(self, archive: Archive, cursor: str) -> None:
        with pytest.raises(Malformed):
            await archive.deletions(3, cursor)

    async def test_a_deleted_event_can_be_published_and_deleted_again(
        self, database: Database, archive: Archive
    ) -> None:
        """Every deletion has its own record."""
        (event,) = await confirmed(database)
        await archive.delete(event.event_id, "Ada", "first")
        await accept(database, event)
        await Outbox(database).confirm([event.event_id], DAY)
        await archive.delete(event.event_id, "Ada", "second")
        assert {document["reason"] for document in await archived(database)} == {"first", "second"}


class TestRefused:
    """Events that the log may lack. They are neither removed nor archived."""

    async def refuses(self, database: Database, archive: Archive, event: Event, why: str) -> None:
        before = await in_events(database, event.event_id)
        with pytest.raises(NotInLog, match=why):
            await archive.delete(event.event_id, "Ada", "hurry")
        assert await in_events(database, event.event_id) == before
        assert await archived(database) == []

    async def test_an_event_with_an_outbox_entry_stays(self, database: Database, archive: Archive) -> None:
        """Only the relay decides if the log has the event."""
        event = an_event()
        await accept(database, event)
        await log(database, event)
        await self.refuses(database, archive, event, "outbox entry")

    async def test_an_event_that_the_log_lost_stays(self, database: Database, archive: Archive) -> None:
        """It has no outbox entry, but the log has regressed since."""
        (event,) = await confirmed(database)
        await database["event_store"].delete_one({"_id": event.event_id})
        await self.refuses(database, archive, event, "reconcile")

    async def test_an_event_with_other_content_in_the_log_stays(self, database: Database, archive: Archive) -> None:
        (event,) = await confirmed(database)
        await database["event_store"].delete_one({"_id": event.event_id})
        await log(database, altered(event))
        await self.refuses(database, archive, event, "reconcile")

    async def test_an_event_that_gets_an_outbox_entry_in_between_stays(
        self, database: Database, archive: Archive
    ) -> None:
        """`reconcile` reopens it between the look and the removal. The removal is conditional."""
        (event,) = await confirmed(database)
        document = await undecoded(database["events"]).find_one({"_id": event.event_id})
        assert document is not None
        await Outbox(database).reopen([event.event_id])
        deletion = archive_entry(event)
        with pytest.raises(NotInLog):
            await archive._move(deletion, document)
        assert await in_events(database, event.event_id) is not None
        assert await archived(database) == []


def archive_entry(event: Event) -> Deletion:
    return Deletion(
        deletion_id=uuid4(),
        event_id=event.event_id,
        event_type=event.event_type,
        deleted_at=datetime.now(UTC),
        deleted_by="Ada",
        reason="a race",
    )


class TestAtomic:
    async def test_without_a_record_no_event_is_removed(self, database: Database, archive: Archive) -> None:
        """The server refuses the record after the removal: both happen, or neither."""
        (event,) = await confirmed(database)
        await database.command("collMod", "archive", validator={"reason": {"$ne": "refused by the server"}})
        with pytest.raises(Unavailable):
            await archive.delete(event.event_id, "Ada", "refused by the server")
        assert await in_events(database, event.event_id) is not None
        assert await archived(database) == []


@pytest.mark.guarantee("R9", "G10")
class TestLogRegressed:
    async def test_reconcile_brings_back_events_that_the_log_lost(
        self, database: Database, settings: Settings, archive: Archive
    ) -> None:
        """Checkpoints stop at such an event until the log has it again. Events in the log stay deleted."""
        lost, kept = await confirmed(database, 2)
        accepted = (await in_events(database, lost.event_id) or {})["seq"]
        for event in (lost, kept):
            await archive.delete(event.event_id, "Ada", "tidying up")
        await database["event_store"].delete_one({"_id": lost.event_id})
        done = await reconcile(database, settings, datetime.now(UTC) - DAY)
        assert (done.reopened, done.brought_back) == (0, 1)
        document = await in_events(database, lost.event_id)
        assert document is not None
        assert (document["outbox"]["state"], document["seq"]) == ("pending", accepted)
        assert "expires_at" not in document
        assert await EventRepository(database).get(lost.event_id) == lost
        assert await in_events(database, kept.event_id) is None
        checkpoint = await Checkpoints(database, timedelta(seconds=4)).measure()
        assert checkpoint.pending == 1
        assert checkpoint.low_watermark is not None
        assert checkpoint.low_watermark <= accepted.as_datetime()
        assert len(await archived(database)) == 2

    async def test_a_second_reconcile_brings_back_nothing(
        self, database: Database, settings: Settings, archive: Archive
    ) -> None:
        """The chunks have 3 events, so there are several chunks."""
        in_chunks = settings.model_copy(update={"relay_batch": 3})
        events = await confirmed(database, 8)
        for event in events:
            await archive.delete(event.event_id, "Ada", "tidying up")
        await database["event_store"].delete_many({})
        since = datetime.now(UTC) - DAY
        assert (await reconcile(database, in_chunks, since)).brought_back == 8
        assert (await reconcile(database, in_chunks, since)).brought_back == 0
        assert await database["events"].count_documents({"outbox.state": "pending"}) == 8

    async def test_deletions_older_than_the_backup_are_left_alone(
        self, database: Database, settings: Settings, archive: Archive
    ) -> None:
        (event,) = await confirmed(database)
        await archive.delete(event.event_id, "Ada", "tidying up")
        await database["event_store"].delete_many({})
        assert (await reconcile(database, settings, datetime.now(UTC) + DAY)).brought_back == 0


class TestRights:
    """The rights of `admin`'s user in the database."""

    async def test_admin_may_delete_and_archive(self, stack: Stack) -> None:
        own = settings_of(stack, mongodb_uri=stack.function_environment("admin")["MONGODB_URI"])
        async with open_database(settings_of(stack), "tests") as everything:
            (event,) = await confirmed(everything)
        async with open_database(own, "tests") as database:
            await Archive(database).delete(event.event_id, "Ada", "a test of rights")
            assert (await Archive(database).deletions(1)).deletions[0].event_id == event.event_id

    @pytest.mark.parametrize("change", ["update", "remove", "drop"])
    def test_admin_may_not_change_the_archive(self, stack: Stack, change: str) -> None:
        with MongoClient[Document](stack.function_environment("admin")["MONGODB_URI"]) as client:
            kept = client[stack.database]["archive"]
            changes: dict[str, Callable[[], object]] = {
                "update": lambda: kept.update_many({}, {"$set": {"reason": ""}}),
                "remove": lambda: kept.delete_many({}),
                "drop": kept.drop,
            }
            with pytest.raises(OperationFailure) as refused:
                changes[change]()
            assert refused.value.code == 13
