"""Dead letters on a real server."""

import asyncio
from typing import Any

import pytest

from tests.helpers import Raw, altered, an_event, delivered, plain_record
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import Conflict, Malformed, Rejected, UnknownReplay
from twofold.event.model import Event
from twofold.mongo.client import Database
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.failed_delivery import DeadLetter

pytestmark = pytest.mark.guarantee("G4", "R10")


def rejected(
    request: tuple[Raw, bytes],
    reason: Rejected | None = None,
    event: Event | None = None,
    partition: int | None = 1,
    offset: int | None = 2,
) -> DeadLetter:
    headers, body = request
    received = DeliveredEvent(event.to_document()) if event else None
    return DeadLetter(headers, body, reason or Malformed("no JSON"), partition, offset, received)


async def kept(database: Database) -> list[dict[str, Any]]:
    return [document async for document in database["dead_letters"].find()]


async def test_bytes_reason_and_place_are_kept(database: Database) -> None:
    """An operator needs them to decide, and to send the delivery again unchanged."""
    body = bytes(range(256))
    headers, _ = plain_record(body)
    headers += [(b"content-type", b"\xff\xfe"), (b"host", b"store"), (b"user-agent", b"Vert.x")]
    await DeadLetters(database).keep(rejected((headers, body)))
    (found,) = await kept(database)
    assert found["body"] == body
    assert (found["reason"], found["detail"], found["state"]) == ("malformed", "no JSON", "dead")
    assert found["kafka"] == {"partition": 1, "offset": 2}
    assert {(header["name"], header["value"]) for header in found["headers"]} == {
        (name.decode(), value) for name, value in headers if name not in (b"host", b"user-agent")
    }


async def test_a_redelivery_is_counted_in_the_same_dead_letter(database: Database) -> None:
    """Headers of the connection and the time differ. The first delivery is kept."""
    dead_letters, (headers, body) = DeadLetters(database), plain_record(b"poison")
    await dead_letters.keep(rejected((headers, body)))
    (first,) = await kept(database)
    await asyncio.sleep(0.01)
    await dead_letters.keep(rejected(([*headers, (b"traceparent-of-the-hop", b"x")], body)))
    (again,) = await kept(database)
    assert (first["times"], again["times"]) == (1, 2)
    assert again["first_at"] == first["first_at"] < again["last_at"]
    assert {name: again[name] for name in again if name not in ("times", "last_at")} == {
        name: first[name] for name in first if name not in ("times", "last_at")
    }


async def test_many_deliveries_at_once_are_one_dead_letter(database: Database) -> None:
    dead_letters = DeadLetters(database)
    await asyncio.gather(*(dead_letters.keep(rejected(plain_record(b"poison"))) for _ in range(20)))
    (found,) = await kept(database)
    assert found["times"] == 20


async def test_the_same_bytes_at_another_place_are_another_dead_letter(database: Database) -> None:
    dead_letters = DeadLetters(database)
    await dead_letters.keep(rejected(plain_record(b"poison")))
    await dead_letters.keep(rejected(plain_record(b"poison"), offset=3))
    assert len(await kept(database)) == 2


async def test_other_bytes_at_the_same_place_are_another_dead_letter(database: Database) -> None:
    """A broker that lost its data starts its offsets at 0 again."""
    dead_letters = DeadLetters(database)
    await dead_letters.keep(rejected(plain_record(b"poison")))
    await dead_letters.keep(rejected(plain_record(b"other poison")))
    assert len(await kept(database)) == 2


async def test_an_event_is_one_dead_letter_at_any_place_in_kafka(database: Database) -> None:
    """The relay may send it again, and a new record has a new offset."""
    dead_letters, event = DeadLetters(database), an_event()
    conflict = Conflict("this id belongs to another event")
    await dead_letters.keep(rejected(delivered(event, 1, 2), conflict, event))
    await dead_letters.keep(rejected(delivered(event, 1, 7), conflict, event, offset=7))
    (found,) = await kept(database)
    assert found["times"] == 2
    assert (found["event_id"], found["digest"]) == (event.event_id, event.digest)


async def test_two_events_with_one_id_are_two_dead_letters(database: Database) -> None:
    dead_letters, event = DeadLetters(database), an_event()
    conflict = Conflict("this id belongs to another event")
    for each in (event, altered(event)):
        await dead_letters.keep(rejected(delivered(each), conflict, each))
    assert len(await kept(database)) == 2


@pytest.mark.guarantee("G8")
async def test_a_replayed_event_is_another_dead_letter(database: Database) -> None:
    """Its headers contain `replayid`, and a redrive of the event itself must not."""
    dead_letters, event = DeadLetters(database), an_event()
    replayed = DeliveredEvent(event.to_document(), replay_id="r-1")
    headers, body = delivered(event, replayid="r-1")
    await dead_letters.keep(DeadLetter(headers, body, UnknownReplay("a replayed event must be known"), 1, 2, replayed))
    await dead_letters.keep(rejected(delivered(event, 1, 3), Conflict("other content"), event, offset=3))
    assert sorted((found["reason"], found["times"]) for found in await kept(database)) == [
        ("identity-conflict", 1),
        ("unknown-replay", 1),
    ]


async def test_dead_compares_identity_and_digest(database: Database) -> None:
    dead_letters, dead, living = DeadLetters(database), an_event(), an_event()
    await dead_letters.keep(rejected(delivered(dead), Conflict("other content"), dead))
    assert await dead_letters.dead([dead.event_id, living.event_id]) == {(dead.event_id, dead.digest)}


async def test_text_that_looks_like_an_expression_is_kept_unchanged(database: Database) -> None:
    """The server must not evaluate `$` names and paths of a delivery."""
    body = b'{"$set": "$$ROOT"}'
    headers = [(b"ce-id", b"$$NOW"), (b"ce-$add", b"$times")]
    await DeadLetters(database).keep(rejected((headers, body), Malformed("$$ROOT")))
    (found,) = await kept(database)
    assert (found["body"], found["detail"]) == (body, "$$ROOT")
    assert found["headers"] == [{"name": "ce-id", "value": b"$$NOW"}, {"name": "ce-$add", "value": b"$times"}]
