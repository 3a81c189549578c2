"""The relay: reads marked events back from `event_store`, takes their marks off, and sends again what isn't there.

Relay, reconciliation and retention are this one mechanism: an event's clock of retention starts when it was read back
from the log with an equal digest, never because Kafka acknowledged it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from twofold import mongo
from twofold.cloudevents import to_kafka
from twofold.dead_letters import DeadLetters
from twofold.event import Event
from twofold.event_store import EventStore
from twofold.events import EventRepository
from twofold.kafka import Sender
from twofold.locks import locked
from twofold.mongo import Database
from twofold.settings import Settings


@dataclass(slots=True)
class Run:
    """What one run did, in events."""

    confirmed: int = 0
    conflicting: int = 0
    dead: int = 0
    resent: int = 0
    unsent: int = 0


class Relay:
    """Looks at due marks, in bulk, one relay at a time. `seconds` is a monotonic clock."""

    def __init__(self, database: Database, sender: Sender, settings: Settings, seconds: Callable[[], float]) -> None:
        self._database = database
        self._events = EventRepository(database)
        self._event_store = EventStore(database)
        self._dead_letters = DeadLetters(database)
        self._sender = sender
        self._batch = settings.relay_batch
        self._budget_s = settings.relay_budget_s
        self._retention = timedelta(days=settings.retention_days)
        self._seconds = seconds

    async def run(self) -> Run | None:
        """Work through the due marks until none is left or the budget is spent; None if another relay is at it.

        Raises `Unavailable` when MongoDB is away; whatever was done by then is done.
        """
        async with locked(self._database, "relay", timedelta(seconds=self._budget_s + 10)) as mine:
            return await self._run() if mine else None

    async def _run(self) -> Run:
        run = Run()
        until = self._seconds() + self._budget_s
        while self._seconds() < until:
            due = await self._events.due(await mongo.server_time(self._database), self._batch)
            if due:
                await self._settle(due, run)
            if len(due) < self._batch:
                break
        return run

    async def _settle(self, due: Sequence[Event], run: Run) -> None:
        ids = [event.event_id for event in due]
        in_log = await self._event_store.known(ids)
        confirmed = [event.event_id for event in due if in_log.get(event.event_id) == event.digest]
        conflicting = [id_ for id_ in in_log if id_ not in set(confirmed)]
        missing = [event for event in due if event.event_id not in in_log]
        dead = await self._dead_letters.dead([event.event_id for event in missing]) if missing else set()
        buried = [event.event_id for event in missing if (event.event_id, event.digest) in dead]
        run.confirmed += await self._events.confirm(confirmed, self._retention)
        run.conflicting += await self._events.give_up(conflicting, "conflict")
        run.dead += await self._events.give_up(buried, "dead")
        await self._send([event for event in missing if event.event_id not in set(buried)], run)

    async def _send(self, missing: Sequence[Event], run: Run) -> None:
        """Send again what is missing; the next try is set first, so that dying in between costs time and no event."""
        if not missing:
            return
        await self._events.postpone([event.event_id for event in missing])
        outcomes = await self._sender.send([to_kafka(event) for event in missing])
        unsent = sum(outcome is not None for outcome in outcomes)
        run.unsent += unsent
        run.resent += len(missing) - unsent
