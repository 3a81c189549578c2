"""Redrive: dead letters go the normal way again, through Kafka to `store`, with their letter's name on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from twofold.kafka.sender import Sender
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.outbox import Outbox


@dataclass(slots=True)
class RedriveResult:
    """What became of the letters that were to be redriven. Whether the log takes them shows later, in their state."""

    sent: int = 0
    not_dead: int = 0
    """In another state by now, not of `store`, or no letters at all: left alone."""
    not_sent: int = 0
    """Kafka did not take them: dead as before."""


class Redrive:
    """Sends dead letters again. Safe twice at once: who changes a letter's state sends it."""

    def __init__(self, letters: DeadLetters, outbox: Outbox, sender: Sender) -> None:
        self._letters = letters
        self._outbox = outbox
        self._sender = sender

    async def redrive(
        self, ids: Sequence[UUID], by: str, progress: Callable[[int], None] = lambda _: None
    ) -> RedriveResult:
        """Redrive those of `ids` that are dead; `by` is kept in their history, `progress` hears each one's end.

        Raises `Unavailable` when MongoDB is away; a letter that is under way by then becomes dead again by itself.
        """
        done = RedriveResult()
        for position, dead_letter_id in enumerate(ids, start=1):
            await self._redrive_one(dead_letter_id, by, done)
            progress(position)
        return done

    async def _redrive_one(self, dead_letter_id: UUID, by: str, done: RedriveResult) -> None:
        record = await self._letters.start_redrive(dead_letter_id, by)
        if record is None:
            done.not_dead += 1
            return
        (outcome,) = await self._sender.send([record])
        if outcome is not None:
            await self._letters.fail_redrive(dead_letter_id, outcome.detail)
            done.not_sent += 1
            return
        done.sent += 1
        letter = await self._letters.get(dead_letter_id)
        if letter and letter["event_id"]:
            await self._outbox.retry([letter["event_id"]])
