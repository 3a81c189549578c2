"""The steps of docs/deploy.md after a loss of `event_store`: restore it from a backup, and complete it.

mongodump is not installed here: the driver writes and reads the same BSON documents. MongoDB checks users: root backs
up and restores, set-up runs as its Job does, and the other steps use the operator's user.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import bson
import httpx
import pytest
from bson.binary import UuidRepresentation
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import BulkWriteError
from typer.testing import CliRunner

from dev.process.child import wait_until
from dev.stack import Options, Stack
from tests.helpers import View, bearer, some_events, view
from twofold.cli.app import app
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.event.model import Event
from twofold.storage.event_store import EventStore

DUPLICATE_KEY = 11000

pytestmark = [pytest.mark.guarantee("G1", "G5", "R9"), pytest.mark.slow]


@pytest.fixture(scope="module")
def own(broker_name: str) -> Iterator[View]:
    """Start a stack for this test, whose log may be lost."""
    options = Options(broker=broker_name, auth=True, settings={"RELAY_FIRST_LOOK_S": "0.1"})
    with Stack(options) as stack, view(stack) as seen:
        yield seen


def publish(own: View, events: Sequence[Event]) -> None:
    """Publish the events, and wait until they are confirmed."""
    assert own.publish_all(events).status_code == 202
    assert own.arrive(events)
    assert own.relayed(events)


def twofold(own: View, *arguments: str) -> str:
    environment = own.stack.function_environment("operator") | {"COLUMNS": "200", "NO_COLOR": "1"}
    run = CliRunner().invoke(app, arguments, env=environment)
    assert run.exit_code == 0, (run.output, run.exception)
    return run.stdout


def raw(own: View) -> Any:
    """Return the collection with its documents as bytes."""
    return own.database.event_store.with_options(bson.CodecOptions(RawBSONDocument))


def dump(own: View, file: Path, query: dict[str, Any] | None = None) -> None:
    with file.open("wb") as output:
        for document in raw(own).find(query or {}):
            output.write(document.raw)


def began(own: View) -> int:
    """Return the start of a dump by MongoDB's clock, in whole seconds."""
    return int(own.database.command("hello")["localTime"].timestamp())


def since(time_s: int) -> dict[str, Any]:
    """Return the query of an incremental dump."""
    return {"seq": {"$gte": Timestamp(time_s, 1)}}


def ids_in(file: Path) -> set[UUID]:
    with file.open("rb") as backup:
        codec = bson.CodecOptions[dict[str, Any]](uuid_representation=UuidRepresentation.STANDARD)
        return {document["_id"] for document in bson.decode_file_iter(backup, codec)}


def restore(own: View, file: Path) -> None:
    """Insert the dump. Existing documents stay, as with mongorestore."""
    with file.open("rb") as backup:
        documents = list(bson.decode_file_iter(backup, bson.CodecOptions(RawBSONDocument)))
    try:
        raw(own).insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if any(failed["code"] != DUPLICATE_KEY for failed in error.details["writeErrors"]):
            raise


@contextmanager
def under_way(own: View, event: Event) -> Iterator[None]:
    """Insert an event into the log. Its `seq` is set at the start of the block, and it commits at the end."""
    document = EventStore.encode(DeliveredEvent(event.to_document()), datetime.now(UTC))
    with own.database.client.start_session() as session, session.start_transaction():
        raw(own).insert_one(document, session=session)
        yield


def checkpoint(own: View) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(twofold(own, "relay", "run", "--json"))["checkpoint"]
    return found


def test_events_that_the_backup_lacks_come_back_from_events(own: View, tmp_path: Path) -> None:
    """Every event is in the log again with its digest. The checkpoints show the regressed log, and its completeness
    later.
    """
    backed_up, later = some_events(30), some_events(20)
    publish(own, backed_up)
    made_at = datetime.now(UTC)
    dump(own, tmp_path / "event_store.bson")
    publish(own, later)
    before = {document["_id"]: document for document in own.database.event_store.find()}

    own.database.event_store.drop()
    restore(own, tmp_path / "event_store.bson")
    own.stack.setup()
    assert own.held("event_store", backed_up + later) == {event.event_id for event in backed_up}
    recorded = checkpoint(own)
    assert (recorded["log_regressed"], recorded["low_watermark"]) == (True, None)

    done = json.loads(twofold(own, "reconcile", "--from", f"{made_at:%Y-%m-%dT%H:%M:%S}", "--json"))
    assert done["reopened"] == len(later)
    assert checkpoint(own)["pending"] == len(later)
    assert own.relayed(later)
    recorded = checkpoint(own)
    assert (recorded["log_regressed"], recorded["pending"]) == (False, 0)
    assert recorded["low_watermark"] is not None
    after = {document["_id"]: document for document in own.database.event_store.find()}
    assert {_id: document["digest"] for _id, document in after.items()} == {
        _id: document["digest"] for _id, document in before.items()
    }
    for event in backed_up:
        assert after[event.event_id] == before[event.event_id], "the bytes are restored, with the place in the feed"


@pytest.mark.fault("A7")
def test_a_reader_of_the_feed_misses_no_event_of_a_restore(own: View) -> None:
    """The feed stops at the loss. After the reconciliation it refuses the old cursor, and `since` gives all events."""
    feed = own.stack.functions["audit"].url + "/feed"
    auditor = bearer("olga", "audit:read")

    def read(**start: str) -> httpx.Response:
        return own.http.get(feed, params={"limit": "1000", **start}, headers=auditor)

    def gives(events: Sequence[Event]) -> bool:
        """Return True if the feed gives these events. Another test may have stored events in the same second."""
        answer = read(since=began_at)
        assert answer.status_code == 200, answer.text
        return {str(event.event_id) for event in events} <= {event["event_id"] for event in answer.json()["events"]}

    began_at = datetime.fromtimestamp(began(own), UTC).isoformat()
    first, second = some_events(10), some_events(10)
    publish(own, first)
    assert wait_until(lambda: gives(first), within=20, every=0.5)
    cursor = read(since=began_at).json()["cursor"]
    publish(own, second)
    backup = list(raw(own).find())
    own.database.event_store.delete_many({})
    third = some_events(5)
    assert own.publish_all(third).status_code == 202
    assert own.arrive(third)
    for start in ({"cursor": cursor}, {"since": began_at}):
        refused = read(**start)
        assert (refused.status_code, "reconcile" in refused.text) == (503, True)
    own.relay()
    raw(own).insert_many(backup)
    assert read(cursor=cursor).status_code == 503, "the relay saw the loss, so only a reconciliation ends it"
    twofold(own, "reconcile", "--from", began_at)
    refused = read(cursor=cursor)
    assert (refused.status_code, "since" in refused.text) == (410, True)
    assert wait_until(lambda: gives(first + second + third), within=20, every=0.5)
    assert own.relayed(third)


def test_an_event_with_a_late_commit_is_in_the_next_dump(own: View, tmp_path: Path) -> None:
    """Its `seq` is lower than the `seq` of events in the dump before, and that dump lacks it."""
    (late,), before, later = some_events(1), some_events(5), some_events(5)
    with under_way(own, late):
        publish(own, before)
        full_began = began(own)
        dump(own, tmp_path / "full.bson")
    publish(own, later)
    held = {document["_id"]: document for document in own.database.event_store.find()}
    highest = max(held[event.event_id]["seq"] for event in before)
    assert held[late.event_id]["seq"] < highest
    assert late.event_id not in ids_in(tmp_path / "full.bson")

    dump(own, tmp_path / "from_the_highest.bson", {"seq": {"$gt": highest}})
    assert late.event_id not in ids_in(tmp_path / "from_the_highest.bson"), "this dump would lose the event"
    dump(own, tmp_path / "since.bson", since(full_began - 60))

    own.database.event_store.drop()
    restore(own, tmp_path / "full.bson")
    restore(own, tmp_path / "since.bson")
    own.stack.setup()
    assert {document["_id"]: document for document in own.database.event_store.find()} == held
