"""`event_store` lost after a backup, restored from it, and brought up to date again, in the steps of docs/deploy.md.

mongodump isn't here: the driver writes and reads what it would, a collection's documents as BSON, one after the other.
MongoDB checks users: root backs up and restores, set-up runs as its Job does, and all else is done with the operator's.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import bson
import pytest
from bson.binary import UuidRepresentation
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import BulkWriteError
from typer.testing import CliRunner

from dev.stack import Options, Stack
from tests.helpers import View, some_events, view
from twofold.cli.app import app
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.event.model import Event
from twofold.storage.event_store import EventStore

DUPLICATE_KEY = 11000

pytestmark = [pytest.mark.guarantee("G1", "G5", "R9"), pytest.mark.slow]


@pytest.fixture(scope="module")
def own(broker_name: str) -> Iterator[View]:
    """A stack of the test's own, whose log may be lost."""
    options = Options(broker=broker_name, auth=True, settings={"RELAY_FIRST_LOOK_S": "0.1"})
    with Stack(options) as stack, view(stack) as seen:
        yield seen


def publish(own: View, events: Sequence[Event]) -> None:
    """Until they are in the log, and their marks off."""
    assert own.publish_all(events).status_code == 202
    assert own.arrive(events)
    assert own.relayed(events)


def twofold(own: View, *arguments: str) -> str:
    environment = own.stack.function_environment("operator") | {"COLUMNS": "200", "NO_COLOR": "1"}
    run = CliRunner().invoke(app, arguments, env=environment)
    assert run.exit_code == 0, (run.output, run.exception)
    return run.stdout


def raw(own: View) -> Any:
    """The collection with its documents as the bytes that they are."""
    return own.database.event_store.with_options(bson.CodecOptions(RawBSONDocument))


def dump(own: View, file: Path, query: dict[str, Any] | None = None) -> None:
    with file.open("wb") as output:
        for document in raw(own).find(query or {}):
            output.write(document.raw)


def began(own: View) -> int:
    """When a dump begins, by MongoDB's clock, in whole seconds."""
    return int(own.database.command("hello")["localTime"].timestamp())


def since(time_s: int) -> dict[str, Any]:
    """What an incremental dump asks for."""
    return {"seq": {"$gte": Timestamp(time_s, 1)}}


def ids_in(file: Path) -> set[UUID]:
    with file.open("rb") as backup:
        codec = bson.CodecOptions[dict[str, Any]](uuid_representation=UuidRepresentation.STANDARD)
        return {document["_id"] for document in bson.decode_file_iter(backup, codec)}


def restore(own: View, file: Path) -> None:
    """What is there already stays, as with mongorestore."""
    with file.open("rb") as backup:
        documents = list(bson.decode_file_iter(backup, bson.CodecOptions(RawBSONDocument)))
    try:
        raw(own).insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if any(failed["code"] != DUPLICATE_KEY for failed in error.details["writeErrors"]):
            raise


@contextmanager
def under_way(own: View, event: Event) -> Iterator[None]:
    """An insert into the log that has its `seq` when the block begins, and commits when it ends."""
    document = EventStore.encode(DeliveredEvent(event.to_document()), datetime.now(UTC))
    with own.database.client.start_session() as session, session.start_transaction():
        raw(own).insert_one(document, session=session)
        yield


def checkpoint(own: View) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(twofold(own, "relay", "run", "--json"))["checkpoint"]
    return found


def test_what_the_backup_lacks_comes_back_from_events(own: View, tmp_path: Path) -> None:
    """Every event is in the log again, with its digest, and the checkpoints say when it was not, and when it is."""
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
    stated = checkpoint(own)
    assert (stated["log_regressed"], stated["low_watermark"]) == (True, None)

    done = json.loads(twofold(own, "reconcile", "--from", f"{made_at:%Y-%m-%dT%H:%M:%S}", "--json"))
    assert done["reopened"] == len(later)
    assert checkpoint(own)["pending"] == len(later)
    assert own.relayed(later)
    stated = checkpoint(own)
    assert (stated["log_regressed"], stated["pending"]) == (False, 0)
    assert stated["low_watermark"] is not None
    after = {document["_id"]: document for document in own.database.event_store.find()}
    assert {_id: document["digest"] for _id, document in after.items()} == {
        _id: document["digest"] for _id, document in before.items()
    }
    for event in backed_up:
        assert after[event.event_id] == before[event.event_id], "restored to the byte, its place in the feed included"


def test_an_event_that_came_late_is_in_the_next_dump(own: View, tmp_path: Path) -> None:
    """It has a lower `seq` than others that the dump before has, and that dump lacks it."""
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
    assert late.event_id not in ids_in(tmp_path / "from_the_highest.bson"), "so this would lose it"
    dump(own, tmp_path / "since.bson", since(full_began - 60))

    own.database.event_store.drop()
    restore(own, tmp_path / "full.bson")
    restore(own, tmp_path / "since.bson")
    own.stack.setup()
    assert {document["_id"]: document for document in own.database.event_store.find()} == held
