"""What can't be taken, kept on the real server."""

import asyncio
from typing import Any

import pytest

from tests.helpers import Raw, altered, an_event, delivered, plain_record
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import Conflict, Malformed, Rejected, UnknownReplay
from twofold.event.model import Event
from twofold.mongo.client import Database
from twofold.storage.dead_letter import DeadLetter
from twofold.storage.dead_letters import DeadLetters

pytestmark = pytest.mark.guarantee("G4", "R10")


def letter(
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


async def test_the_bytes_the_reason_and_the_place_are_kept(database: Database) -> None:
    """Everything that it takes to judge it, and to send it again as it was."""
    body = bytes(range(256))
    headers, _ = plain_record(body)
    headers += [(b"content-type", b"\xff\xfe"), (b"host", b"store"), (b"user-agent", b"Vert.x")]
    await DeadLetters(database).keep(letter((headers, body)))
    (found,) = await kept(database)
    assert found["body"] == body
    assert (found["reason"], found["detail"], found["state"]) == ("malformed", "no JSON", "dead")
    assert found["kafka"] == {"partition": 1, "offset": 2}
    assert {(header["name"], header["value"]) for header in found["headers"]} == {
        (name.decode(), value) for name, value in headers if name not in (b"host", b"user-agent")
    }


async def test_a_redelivery_is_counted_in_the_same_letter(database: Database) -> None:
    """Another connection's headers, and a later time: still the same letter, as it first came."""
    letters, (headers, body) = DeadLetters(database), plain_record(b"poison")
    await letters.keep(letter((headers, body)))
    (first,) = await kept(database)
    await asyncio.sleep(0.01)
    await letters.keep(letter(([*headers, (b"traceparent-of-the-hop", b"x")], body)))
    (again,) = await kept(database)
    assert (first["times"], again["times"]) == (1, 2)
    assert again["first_at"] == first["first_at"] < again["last_at"]
    assert {name: again[name] for name in again if name not in ("times", "last_at")} == {
        name: first[name] for name in first if name not in ("times", "last_at")
    }


async def test_many_at_once_are_one_letter(database: Database) -> None:
    letters = DeadLetters(database)
    await asyncio.gather(*(letters.keep(letter(plain_record(b"poison"))) for _ in range(20)))
    (found,) = await kept(database)
    assert found["times"] == 20


async def test_the_same_bytes_at_another_place_are_another_letter(database: Database) -> None:
    letters = DeadLetters(database)
    await letters.keep(letter(plain_record(b"poison")))
    await letters.keep(letter(plain_record(b"poison"), offset=3))
    assert len(await kept(database)) == 2


async def test_other_bytes_at_the_same_place_are_another_letter(database: Database) -> None:
    """A broker that lost its log counts its offsets from 0 again."""
    letters = DeadLetters(database)
    await letters.keep(letter(plain_record(b"poison")))
    await letters.keep(letter(plain_record(b"other poison")))
    assert len(await kept(database)) == 2


async def test_an_event_is_one_letter_wherever_it_lay(database: Database) -> None:
    """The relay may send it again and again: each record has another offset."""
    letters, event = DeadLetters(database), an_event()
    conflict = Conflict("this id belongs to another event")
    await letters.keep(letter(delivered(event, 1, 2), conflict, event))
    await letters.keep(letter(delivered(event, 1, 7), conflict, event, offset=7))
    (found,) = await kept(database)
    assert found["times"] == 2
    assert (found["event_id"], found["digest"]) == (event.event_id, event.digest)


async def test_two_events_under_one_id_are_two_letters(database: Database) -> None:
    letters, event = DeadLetters(database), an_event()
    conflict = Conflict("this id belongs to another event")
    for each in (event, altered(event)):
        await letters.keep(letter(delivered(each), conflict, each))
    assert len(await kept(database)) == 2


@pytest.mark.guarantee("G8")
async def test_a_replay_has_a_letter_of_its_own(database: Database) -> None:
    """Its headers say `replayid`: redriven, the event's own letter must not."""
    letters, event = DeadLetters(database), an_event()
    replayed = DeliveredEvent(event.to_document(), replay_id="r-1")
    headers, body = delivered(event, replayid="r-1")
    await letters.keep(DeadLetter(headers, body, UnknownReplay("a replayed event must be known"), 1, 2, replayed))
    await letters.keep(letter(delivered(event, 1, 3), Conflict("other content"), event, offset=3))
    assert sorted((found["reason"], found["times"]) for found in await kept(database)) == [
        ("identity-conflict", 1),
        ("unknown-replay", 1),
    ]


async def test_dead_are_those_with_the_same_identity_and_digest(database: Database) -> None:
    letters, dead, living = DeadLetters(database), an_event(), an_event()
    await letters.keep(letter(delivered(dead), Conflict("other content"), dead))
    assert await letters.dead([dead.event_id, living.event_id]) == {(dead.event_id, dead.digest)}


async def test_a_letter_whose_text_looks_like_an_expression_is_kept_as_it_is(database: Database) -> None:
    """`$`-names and paths in what was sent must not be evaluated by the server."""
    body = b'{"$set": "$$ROOT"}'
    headers = [(b"ce-id", b"$$NOW"), (b"ce-$add", b"$times")]
    await DeadLetters(database).keep(letter((headers, body), Malformed("$$ROOT")))
    (found,) = await kept(database)
    assert (found["body"], found["detail"]) == (body, "$$ROOT")
    assert found["headers"] == [{"name": "ce-id", "value": b"$$NOW"}, {"name": "ce-$add", "value": b"$times"}]
