"""Redrive: send dead letters to Kafka again, and let `store` decide on them once more.

The record carries the id of its dead letter in `redriveof`. So `store` ends the same dead letter, or makes it dead
again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from twofold.kafka.sender import Sender
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.outbox import Outbox


@dataclass(slots=True)
class RedriveResult:
    """The number of dead letters by result. The state of a dead letter shows later if the log accepted it."""

    sent: int = 0
    not_dead: int = 0
    """Left alone: in another state, not of `store`, or unknown."""
    not_sent: int = 0
    """Dead as before, because Kafka did not take the record."""


class Redrive:
    """Sends dead letters again. Two at once are safe: only the process that changes the state sends the record."""

    def __init__(self, dead_letters: DeadLetters, outbox: Outbox, sender: Sender) -> None:
        self._dead_letters = dead_letters
        self._outbox = outbox
        self._sender = sender

    async def redrive(
        self, ids: Sequence[UUID], by: str, progress: Callable[[int], None] = lambda _: None
    ) -> RedriveResult:
        """Redrive the dead letters with these ids. `by` goes into the history, `progress` gets the number so far.

        Raises `Unavailable` when MongoDB is unavailable. A dead letter in `redriving` becomes dead again after a while.
        """
        result = RedriveResult()
        for position, dead_letter_id in enumerate(ids, start=1):
            await self._redrive_one(dead_letter_id, by, result)
            progress(position)
        return result

    async def _redrive_one(self, dead_letter_id: UUID, by: str, result: RedriveResult) -> None:
        record = await self._dead_letters.start_redrive(dead_letter_id, by)
        if record is None:
            result.not_dead += 1
            return
        (outcome,) = await self._sender.send([record])
        if outcome is not None:
            await self._dead_letters.fail_redrive(dead_letter_id, outcome.detail)
            result.not_sent += 1
            return
        result.sent += 1
        document = await self._dead_letters.get(dead_letter_id)
        if document and document["event_id"]:
            await self._outbox.retry([document["event_id"]])
