"""`event_store` lost after a backup, restored from it, and brought up to date again, as docs/deploy.md tells.

mongodump isn't here: the driver writes and reads what it would, a collection's documents as BSON, one after the other.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from typer.testing import CliRunner

from dev.stack import Options, Stack
from tests.helpers import View, some_events, view
from twofold.cli import app
from twofold.event import Event

pytestmark = pytest.mark.guarantee("G1", "G5", "R9")


@pytest.fixture(scope="module")
def own(broker_name: str) -> Iterator[View]:
    """A stack of the test's own, whose log may be lost."""
    with Stack(Options(broker=broker_name, settings={"RELAY_FIRST_LOOK_S": "0.1"})) as stack, view(stack) as seen:
        yield seen


def publish(own: View, events: Sequence[Event]) -> None:
    """Until they are in the log, and their marks off."""
    assert own.publish_all(events).status_code == 202
    assert own.arrive(events)
    assert own.relayed(events)


def twofold(own: View, *arguments: str) -> str:
    run = CliRunner().invoke(app, arguments, env=own.stack.environment | {"COLUMNS": "200", "NO_COLOR": "1"})
    assert run.exit_code == 0, (run.output, run.exception)
    return run.stdout


def raw(own: View) -> Any:
    """The collection with its documents as the bytes that they are."""
    return own.database.event_store.with_options(bson.CodecOptions(RawBSONDocument))


def dump(own: View, file: Path) -> None:
    with file.open("wb") as output:
        for document in raw(own).find():
            output.write(document.raw)


def restore(own: View, file: Path) -> None:
    with file.open("rb") as backup:
        raw(own).insert_many(bson.decode_file_iter(backup, bson.CodecOptions(RawBSONDocument)))


def statement(own: View) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(twofold(own, "relay", "run", "--json"))["statement"]
    return found


def test_what_the_backup_lacks_comes_back_from_events(own: View, tmp_path: Path) -> None:
    """Every event is in the log again, with its digest, and the statements say when it was not, and when it is."""
    backed_up, later = some_events(30), some_events(20)
    publish(own, backed_up)
    made_at = datetime.now(UTC)
    dump(own, tmp_path / "event_store.bson")
    publish(own, later)
    before = {document["_id"]: document for document in own.database.event_store.find()}

    own.database.event_store.drop()
    twofold(own, "setup")
    restore(own, tmp_path / "event_store.bson")
    assert own.held("event_store", backed_up + later) == {event.event_id for event in backed_up}
    stated = statement(own)
    assert (stated["set_back"], stated["complete_up_to"]) == (True, None)

    done = json.loads(twofold(own, "reconcile", "--from", f"{made_at:%Y-%m-%dT%H:%M:%S}", "--json"))
    assert done["marked"] == len(later)
    assert statement(own)["pending"] == len(later)
    assert own.arrive(later)
    assert own.relayed(later)
    stated = statement(own)
    assert (stated["set_back"], stated["pending"]) == (False, 0)
    assert stated["complete_up_to"] is not None
    after = {document["_id"]: document for document in own.database.event_store.find()}
    assert {_id: document["digest"] for _id, document in after.items()} == {
        _id: document["digest"] for _id, document in before.items()
    }
    for event in backed_up:
        assert after[event.event_id] == before[event.event_id], "restored to the byte, its place in the feed included"
