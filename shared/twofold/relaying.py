"""The relay: reads marked events back from `event_store`, takes their marks off, and sends again what isn't there.

Relay, reconciliation and retention are this one mechanism: an event's clock of retention starts when it was read back
from the log with an equal digest, never because Kafka acknowledged it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

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
    unreadable: int = 0
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

    async def _settle(self, due: Mapping[UUID, bytes], run: Run) -> None:
        in_log = await self._event_store.known(list(due))
        confirmed = [event_id for event_id, digest in in_log.items() if digest == due[event_id]]
        conflicting = [event_id for event_id, digest in in_log.items() if digest != due[event_id]]
        missing = [event_id for event_id in due if event_id not in in_log]
        run.confirmed += await self._events.confirm(confirmed, self._retention)
        run.conflicting += await self._events.give_up(conflicting, "conflict")
        if missing:
            dead = await self._dead_letters.dead(missing)
            buried = [event_id for event_id in missing if (event_id, due[event_id]) in dead]
            run.dead += await self._events.give_up(buried, "dead")
            await self._send_again([event_id for event_id in missing if event_id not in set(buried)], run)

    async def _send_again(self, missing: Sequence[UUID], run: Run) -> None:
        """The next try is set before sending, so that dying in between costs time and no event."""
        loaded = await self._events.load(missing)
        unreadable = [event_id for event_id, event in loaded.items() if not isinstance(event, Event)]
        run.unreadable += await self._events.give_up(unreadable, "unreadable")
        await self._events.postpone([event_id for event_id in missing if event_id not in set(unreadable)])
        in_order = (loaded.get(event_id) for event_id in missing)
        outcomes = await self._sender.send([to_kafka(event) for event in in_order if isinstance(event, Event)])
        run.resent += outcomes.count(None)
        run.unsent += len(outcomes) - outcomes.count(None)
