"""The relay: reads marked events back from `event_store`, takes their marks off, and sends again what isn't there.

Relay, reconciliation and retention are this one mechanism: an event's clock of retention starts when it was read back
from the log with an equal digest, never because Kafka acknowledged it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.cloudevents.encode import KafkaRecord, encode_kafka
from twofold.errors import Rejected, Unavailable
from twofold.event.model import Event
from twofold.kafka.lag import Backlog, read_backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.mongo.lock import hold_lock
from twofold.mongo.safe_time import server_time
from twofold.observability.metrics import (
    COMPLETENESS_DELAY,
    CONSUMER_LAG,
    LOG_REGRESSED,
    OLDEST_PENDING,
    PENDING,
    RELAYED,
    UNRESOLVED,
)
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import RelaySettings
from twofold.storage.checkpoints import Checkpoint, Checkpoints
from twofold.storage.dead_letters import DeadLetter, DeadLetters
from twofold.storage.event_store import EventStore
from twofold.storage.outbox import Outbox, OutboxEntry

logger = logging.getLogger(__name__)


LONGEST_HOLD = timedelta(hours=1)
"""After this, an event is sent again even if the consumer group might still come to it."""


@dataclass(slots=True)
class RelayRun:
    """What one run did, in events, and the checkpoint that it ended with."""

    confirmed: int = 0
    conflicting: int = 0
    dead: int = 0
    unreadable: int = 0
    held: int = 0
    resent: int = 0
    unsent: int = 0
    checkpoint: Checkpoint | None = None


class Relay:
    """Looks at due marks, in bulk, one relay at a time.

    `seconds` is a monotonic clock; `backlog` says what the consumer group has before it, and raises `Unavailable` when
    Kafka is away.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender,
        settings: RelaySettings,
        seconds: Callable[[], float],
        backlog: Callable[[], Awaitable[Backlog]],
        *,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._database = database
        self._outbox = Outbox(database, timedelta(seconds=settings.relay_back_off_s))
        self._event_store = EventStore(database)
        self._dead_letters = DeadLetters(database, telemetry)
        self._checkpoints = Checkpoints(database, timedelta(seconds=settings.mongodb_timeout_s))
        self._sender = sender
        self._batch = min(settings.relay_batch, settings.send_capacity)
        self._load_bytes = settings.relay_bytes
        self._send_bytes = settings.send_capacity_bytes
        self._budget_s = settings.relay_budget_s
        self._first_look = timedelta(seconds=settings.relay_first_look_s)
        self._clock_skew = timedelta(seconds=settings.relay_clock_skew_s)
        self._retention = timedelta(days=settings.retention_days)
        self._seconds = seconds
        self._backlog = backlog
        self._telemetry = telemetry
        self._of_lag: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.destination.name": settings.kafka_topic,
            "messaging.consumer.group.name": settings.kafka_consumer_group,
        }

    async def run(self) -> RelayRun | None:
        """Work through the due marks until none is left or the budget is spent; None if another relay is at it.

        Ends with a checkpoint. Raises `Unavailable` when MongoDB is away; whatever was done by then is done.
        """
        async with hold_lock(self._database, "relay", timedelta(seconds=self._budget_s + 30)) as mine:
            return await self._run() if mine else None

    async def last_checkpoint(self) -> Checkpoint | None:
        """What the last run stated."""
        return await self._checkpoints.last()

    async def _run(self) -> RelayRun:
        run = RelayRun()
        backlog = await self._backlog_or_none()
        until = self._seconds() + self._budget_s
        more = True
        while more and self._seconds() < until:
            now = await server_time(self._database)
            due = await self._outbox.due(now, self._first_look, self._batch)
            if due:
                to_send = await self._settle(due, now, backlog, run)
                await self._send_again(to_send, until, run)
            more = len(due) == self._batch and backlog is not None and not run.unsent
        await self._look_up_dead_letters()
        await self._dead_letters.expire_redrives()
        run.checkpoint = await self._checkpoints.record()
        self._tell(run, run.checkpoint, backlog)
        return run

    async def _look_up_dead_letters(self) -> None:
        """A source may give up on what is in the log already, and has no mark any more that would be looked at."""
        letters = await self._dead_letters.to_look_up(self._batch)
        in_log = await self._event_store.known([letter["event_id"] for letter in letters]) if letters else {}
        await self._dead_letters.events_stored(in_log)
        await self._dead_letters.looked_up(letters)

    def _tell(self, run: RelayRun, stated: Checkpoint, backlog: Backlog | None) -> None:
        for outcome in ("confirmed", "conflicting", "dead", "unreadable", "held", "resent", "unsent"):
            self._telemetry.record(RELAYED, getattr(run, outcome), {"twofold.outcome": outcome})
        for state in ("dead", "conflicting", "unreadable"):
            self._telemetry.record(UNRESOLVED, getattr(stated, state), {"twofold.state": state})
        self._telemetry.record(PENDING, stated.pending)
        self._telemetry.record(OLDEST_PENDING, _seconds(stated.at, stated.oldest_pending or stated.at))
        self._telemetry.record(LOG_REGRESSED, int(stated.log_regressed))
        if stated.low_watermark is not None:
            self._telemetry.record(COMPLETENESS_DELAY, _seconds(stated.at, stated.low_watermark))
        for partition, lag in (backlog.lag if backlog else {}).items():
            self._telemetry.record(
                CONSUMER_LAG, lag, self._of_lag | {"messaging.destination.partition.id": str(partition)}
            )

    async def _backlog_or_none(self) -> Backlog | None:
        """None if Kafka is away: then marks are taken off, but nothing is sent, and no try is counted."""
        try:
            return await self._backlog()
        except Unavailable as error:
            logger.warning("nothing is sent again in this run: %s", error)
            return None

    async def _settle(
        self, due: Sequence[OutboxEntry], now: datetime, backlog: Backlog | None, run: RelayRun
    ) -> list[UUID]:
        """Do what can be done without sending; which events are to be sent again, the longest due first."""
        in_log = await self._event_store.known([mark.event_id for mark in due])
        found = [mark for mark in due if mark.event_id in in_log]
        missing = [mark for mark in due if mark.event_id not in in_log]
        confirmed = [mark.event_id for mark in found if in_log[mark.event_id] == mark.digest]
        conflicting = [mark.event_id for mark in found if in_log[mark.event_id] != mark.digest]
        await self._dead_letters.events_stored({event_id: in_log[event_id] for event_id in confirmed})
        run.confirmed += await self._outbox.confirm(confirmed, self._retention)
        run.conflicting += await self._outbox.stop_retrying(conflicting, "conflicting")
        if missing and backlog is not None:
            return await self._still_missing(missing, now, backlog, run)
        return []

    async def _still_missing(
        self, missing: Sequence[OutboxEntry], now: datetime, backlog: Backlog, run: RelayRun
    ) -> list[UUID]:
        """Give up the dead, and hold what the consumer group may still come to; the rest is to be sent again."""
        dead = await self._dead_letters.dead([mark.event_id for mark in missing])
        buried = {mark.event_id for mark in missing if (mark.event_id, mark.digest) in dead}
        held = {
            mark.event_id
            for mark in missing
            if now - mark.sent_at < LONGEST_HOLD and backlog.may_hold(mark.sent_at + self._clock_skew)
        } - buried
        run.dead += await self._outbox.stop_retrying(list(buried), "dead")
        run.held += await self._outbox.hold(list(held))
        return [mark.event_id for mark in missing if mark.event_id not in buried | held]

    async def _send_again(self, ids: Sequence[UUID], until: float, run: RelayRun) -> None:
        """Send the events, no more of them in memory at a time than `relay_bytes`; end when Kafka goes away."""
        sizes = await self._outbox.sizes(ids)
        for some in _pieces([event_id for event_id in ids if event_id in sizes], sizes.__getitem__, self._load_bytes):
            loaded = await self._outbox.load(some)
            unreadable = [event_id for event_id, event in loaded.items() if isinstance(event, Rejected)]
            run.unreadable += await self._outbox.stop_retrying(unreadable, "unreadable")
            events = [event for event_id in some if isinstance(event := loaded.get(event_id), Event)]
            await self._send([(event, encode_kafka(event)) for event in events], run)
            if run.unsent or self._seconds() >= until:
                return

    async def _send(self, events: Sequence[tuple[Event, KafkaRecord]], run: RelayRun) -> None:
        """The next try is set before sending, so that dying in between costs time and no event.

        No more is sent at once than the sender holds: what it would not take has not been tried.
        """
        for some in _pieces(events, lambda each: each[1].size, self._send_bytes):
            await self._outbox.postpone([event.event_id for event, _ in some])
            outcomes = await self._sender.send([record for _, record in some])
            for (event, record), outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, Rejected):
                    await self._dead_letter(event, record, outcome, run)
                elif outcome is not None:
                    run.unsent += 1
                else:
                    run.resent += 1
            if run.unsent:
                return

    async def _dead_letter(self, event: Event, record: KafkaRecord, reason: Rejected, run: RelayRun) -> None:
        """Kafka refuses the record for good: a dead letter, and the run goes on."""
        headers = [(name.replace("ce_", "ce-", 1).encode(), value) for name, value in record.headers]
        letter = DeadLetter(headers, record.value, reason, None, None, DeliveredEvent(event.to_document()))
        await self._dead_letters.keep(letter)
        run.dead += await self._outbox.stop_retrying([event.event_id], "dead")


_Item = TypeVar("_Item")


def _pieces(items: Iterable[_Item], size: Callable[[_Item], int], most: int) -> Iterator[list[_Item]]:
    """The items in their order, in pieces of at most `most` together; one that is larger is a piece of its own."""
    piece: list[_Item] = []
    together = 0
    for item in items:
        if piece and together + size(item) > most:
            yield piece
            piece, together = [], 0
        piece.append(item)
        together += size(item)
    if piece:
        yield piece


def _seconds(now: datetime, then: datetime) -> float:
    return max((now - then).total_seconds(), 0.0)


def open_relay(database: Database, sender: Sender, settings: RelaySettings, telemetry: Telemetry = SILENT) -> Relay:
    """A relay with the real clock, and the consumer group's backlog from Kafka."""
    backlog = partial(asyncio.to_thread, read_backlog, settings)
    return Relay(database, sender, settings, time.monotonic, backlog, telemetry=telemetry)
