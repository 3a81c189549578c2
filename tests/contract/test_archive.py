"""Taking events out of `events` on the real server: only what the log has, with a record, and never for good."""

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
    """New events, in `events` and in the log, without marks."""
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
    async def test_it_moves_from_events_to_the_archive(self, database: Database, archive: Archive) -> None:
        """Whole, with who, when by the server's clock, and why; the log keeps it."""
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

    async def test_one_that_is_not_there_is_told(self, database: Database, archive: Archive) -> None:
        """Deleted already, or never there."""
        (event,) = await confirmed(database)
        await archive.delete(event.event_id, "Ada", "once")
        for event_id in (event.event_id, uuid4()):
            with pytest.raises(NotFound):
                await archive.delete(event_id, "Ada", "again")
        assert len(await archived(database)) == 1

    async def test_two_at_once_delete_it_once(self, database: Database, archive: Archive) -> None:
        (event,) = await confirmed(database)
        outcomes = await asyncio.gather(
            *(archive.delete(event.event_id, f"admin {number}", "a race") for number in range(6)),
            return_exceptions=True,
        )
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
        assert all(isinstance(outcome, NotFound | NotInLog) for outcome in outcomes if isinstance(outcome, Exception))
        assert len(await archived(database)) == 1

    async def test_they_are_listed_the_newest_first_in_pages(self, database: Database, archive: Archive) -> None:
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
    async def test_a_cursor_that_is_none_is_refused(self, archive: Archive, cursor: str) -> None:
        with pytest.raises(Malformed):
            await archive.deletions(3, cursor)

    async def test_it_may_be_published_again(self, database: Database, archive: Archive) -> None:
        """And deleted again: each deletion has its own line."""
        (event,) = await confirmed(database)
        await archive.delete(event.event_id, "Ada", "first")
        await accept(database, event)
        await Outbox(database).confirm([event.event_id], DAY)
        await archive.delete(event.event_id, "Ada", "second")
        assert {document["reason"] for document in await archived(database)} == {"first", "second"}


class TestRefused:
    """What the log is not known to have: nothing is removed, and nothing is archived."""

    async def refuses(self, database: Database, archive: Archive, event: Event, why: str) -> None:
        before = await in_events(database, event.event_id)
        with pytest.raises(NotInLog, match=why):
            await archive.delete(event.event_id, "Ada", "hurry")
        assert await in_events(database, event.event_id) == before
        assert await archived(database) == []

    async def test_one_with_a_mark_stays(self, database: Database, archive: Archive) -> None:
        """Whatever the log has: it is the relay that finds out."""
        event = an_event()
        await accept(database, event)
        await log(database, event)
        await self.refuses(database, archive, event, "outbox entry")

    async def test_one_that_the_log_lost_stays(self, database: Database, archive: Archive) -> None:
        """Its mark is off, but the log was set back since."""
        (event,) = await confirmed(database)
        await database["event_store"].delete_one({"_id": event.event_id})
        await self.refuses(database, archive, event, "reconcile")

    async def test_one_whose_id_has_other_content_in_the_log_stays(self, database: Database, archive: Archive) -> None:
        (event,) = await confirmed(database)
        await database["event_store"].delete_one({"_id": event.event_id})
        await log(database, altered(event))
        await self.refuses(database, archive, event, "reconcile")

    async def test_one_that_is_marked_meanwhile_stays(self, database: Database, archive: Archive) -> None:
        """`reconcile` marks it between the look and the removal: the removal is conditional."""
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
    async def test_without_its_record_nothing_goes(self, database: Database, archive: Archive) -> None:
        """The server refuses the record, behind the removal: both, or neither."""
        (event,) = await confirmed(database)
        await database.command("collMod", "archive", validator={"reason": {"$ne": "refused by the server"}})
        with pytest.raises(Unavailable):
            await archive.delete(event.event_id, "Ada", "refused by the server")
        assert await in_events(database, event.event_id) is not None
        assert await archived(database) == []


@pytest.mark.guarantee("R9", "G10")
class TestSetBack:
    async def test_reconcile_brings_back_what_the_log_lost(
        self, database: Database, settings: Settings, archive: Archive
    ) -> None:
        """Then nothing is stated beyond it until it is in the log again; what the log still has stays deleted."""
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
        stated = await Checkpoints(database, timedelta(seconds=4)).measure()
        assert stated.pending == 1
        assert stated.low_watermark is not None
        assert stated.low_watermark <= accepted.as_datetime()
        assert len(await archived(database)) == 2

    async def test_run_again_it_brings_back_nothing_twice(
        self, database: Database, settings: Settings, archive: Archive
    ) -> None:
        """In pieces of 3, with more than one piece."""
        pieces = settings.model_copy(update={"relay_batch": 3})
        events = await confirmed(database, 8)
        for event in events:
            await archive.delete(event.event_id, "Ada", "tidying up")
        await database["event_store"].delete_many({})
        since = datetime.now(UTC) - DAY
        assert (await reconcile(database, pieces, since)).brought_back == 8
        assert (await reconcile(database, pieces, since)).brought_back == 0
        assert await database["events"].count_documents({"outbox.state": "pending"}) == 8

    async def test_what_is_older_than_the_backup_is_let_alone(
        self, database: Database, settings: Settings, archive: Archive
    ) -> None:
        (event,) = await confirmed(database)
        await archive.delete(event.event_id, "Ada", "tidying up")
        await database["event_store"].delete_many({})
        assert (await reconcile(database, settings, datetime.now(UTC) + DAY)).brought_back == 0


class TestRights:
    """The database's own: what `admin`'s user may do, and what not."""

    async def test_it_may_delete_and_archive(self, stack: Stack) -> None:
        own = settings_of(stack, mongodb_uri=stack.function_environment("admin")["MONGODB_URI"])
        async with open_database(settings_of(stack), "tests") as everything:
            (event,) = await confirmed(everything)
        async with open_database(own, "tests") as database:
            await Archive(database).delete(event.event_id, "Ada", "a test of rights")
            assert (await Archive(database).deletions(1)).deletions[0].event_id == event.event_id

    @pytest.mark.parametrize("change", ["update", "remove", "drop"])
    def test_it_may_not_change_what_it_archived(self, stack: Stack, change: str) -> None:
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
