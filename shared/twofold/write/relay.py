"""The relay: it confirms the outbox entries of events that the log has, and sends the other events again.

A run takes the due entries in batches, looks the events up in `event_store` with a majority read, and decides:

| `event_store` | condition | decision | counted as |
|---|---|---|---|
| equal digest | | Confirm the entry. The retention starts. | `confirmed` |
| another digest | | Keep the entry as `conflicting`, and stop retrying. | `conflicting` |
| missing | rejected for a lasting reason | Keep the entry as `dead`, and stop retrying. | `dead` |
| missing | the consumer group has not reached its record | Look again after the back-off. | `held` |
| missing | tried `RELAY_MAX_TRIES` times | Keep the entry as `stuck`, and stop retrying. | `stuck` |
| missing | a newer version of Twofold wrote it | Count a try, and look again. | `held` |
| missing | changed in the database | Keep the entry as `unreadable`, and stop retrying. | `unreadable` |
| missing | Kafka refuses the record for good | Keep a dead letter, and the entry as `dead`. | `dead` |
| missing | none of these | Set the time of the next try, then send the event again. | `resent` or `unsent` |

A reason is lasting, unless it is `undelivered` or `unknown-replay`. An event waits as long as its record is in the
backlog of the consumer group, however long `store` is unavailable. So the relay never sends an event behind its own
record. While the backlog is large, a run sends one batch (`send_window.py`).

While Kafka is unavailable, a run only decides on events in the log. A try that Kafka does not accept is not counted.
While the log has regressed, no event expires (`storage/log_state.py`). Relay, reconciliation and retention are this one
mechanism: retention starts because an event was read back from the log, never because Kafka acknowledged it. A run ends
with a completeness checkpoint.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.cloudevents.encode import KafkaRecord, encode_kafka
from twofold.errors import Rejected, Unavailable
from twofold.event.model import Event
from twofold.kafka.lag import Backlog, read_backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, Seq
from twofold.mongo.lock import hold_lock
from twofold.mongo.safe_time import server_time
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import RelaySettings
from twofold.storage.checkpoints import Checkpoint, Checkpoints
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.event_store import EventStore
from twofold.storage.failed_delivery import DeadLetter
from twofold.storage.log_state import BEFORE_EVERY_SEQ
from twofold.storage.outbox import Outbox, OutboxEntry
from twofold.write.relay_run import RelayRun, record_checkpoint, record_lag, record_run
from twofold.write.send_window import SendWindow

logger = logging.getLogger(__name__)

KEPT_WHILE_REGRESSED = timedelta(days=2)
"""The time that events stay in `events` while the log has regressed. The relay renews it once a day."""


class Relay:
    """Works through the due outbox entries, one relay at a time.

    `clock` gives monotonic seconds. `backlog` reads the backlog of the consumer group, and raises `Unavailable` when
    Kafka is unavailable.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender,
        settings: RelaySettings,
        clock: Callable[[], float],
        backlog: Callable[[], Awaitable[Backlog]],
        *,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._database = database
        self._outbox = Outbox(database, timedelta(seconds=settings.relay_back_off_s))
        self._event_store = EventStore(database)
        self._dead_letters = DeadLetters(database, telemetry)
        self._checkpoints = Checkpoints(database)
        self._sender = sender
        self._settings = settings
        self._batch = min(settings.relay_batch, settings.send_capacity)
        self._first_look = timedelta(seconds=settings.relay_first_look_s)
        self._clock_skew = timedelta(seconds=settings.relay_clock_skew_s)
        self._retention = timedelta(days=settings.retention_days)
        self._kept = self._retention
        self._clock = clock
        self._backlog = backlog
        self._telemetry = telemetry
        self._head = BEFORE_EVERY_SEQ
        """The `seq` of the newest head in `checkpoints`. No event above it may be confirmed."""

    async def run(self, *, make_due: bool = False) -> RelayRun | None:
        """Work through the due entries until the end or until the budget is spent. None: another relay is running.

        `make_due` makes every pending entry due first, whatever its back-off is. Raises `Unavailable` when MongoDB is
        unavailable. The decisions until then are kept.
        """
        async with hold_lock(self._database, "relay", timedelta(seconds=self._settings.relay_budget_s + 30)) as lock:
            return await self._run(make_due=make_due) if lock else None

    async def last_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint of the last run."""
        return await self._checkpoints.last()

    async def _run(self, *, make_due: bool) -> RelayRun:
        run = RelayRun()
        until = self._clock() + self._settings.relay_budget_s
        await self._note_head()
        if make_due:
            await self._make_due()
        window = SendWindow(self._backlog_or_none, self._batch)
        await window.open()
        more = True
        while more and self._clock() < until:
            now = await server_time(self._database)
            due = await self._outbox.due(now, self._first_look, self._batch)
            if due:
                to_send = await self._decide(due, window, run)
                await self._send_again(to_send, until, run)
            more = len(due) == self._batch and window.backlog is not None and not run.unsent
        await self._look_up_dead_letters()
        await self._dead_letters.expire_redrives()
        run.checkpoint = await self._checkpoints.record(self._settings.retention_days)
        self._record(run, run.checkpoint, window.backlog)
        return run

    async def _note_head(self) -> None:
        """Record the head of the log, so that later checkpoints miss it. In a regressed log, defer the expiry."""
        log = await self._checkpoints.note_head()
        self._head = log.head["seq"] if log.head else BEFORE_EVERY_SEQ
        if not log.regressed:
            self._kept = self._retention
            return
        self._kept = max(self._retention, KEPT_WHILE_REGRESSED)
        now = await server_time(self._database)
        soon, later = now + KEPT_WHILE_REGRESSED / 2, now + KEPT_WHILE_REGRESSED
        until = self._clock() + self._settings.relay_budget_s / 2
        while self._clock() < until and await self._outbox.defer_expiry(soon, later, self._settings.relay_batch):
            pass

    async def _make_due(self) -> None:
        now = await server_time(self._database)
        while await self._outbox.make_due(now, self._settings.relay_batch):
            pass

    def _record(self, run: RelayRun, checkpoint: Checkpoint, backlog: Backlog | None) -> None:
        record_run(self._telemetry, run)
        record_checkpoint(self._telemetry, checkpoint)
        if backlog is not None:
            record_lag(self._telemetry, backlog, self._settings)

    async def _look_up_dead_letters(self) -> None:
        """End dead letters of events in the log: see `DeadLetters.to_look_up`."""
        documents = await self._dead_letters.to_look_up(self._batch)
        in_log = await self._event_store.known([document["event_id"] for document in documents]) if documents else {}
        await self._dead_letters.finish_stored(in_log)
        await self._dead_letters.looked_up(documents)

    async def _backlog_or_none(self) -> Backlog | None:
        try:
            return await self._backlog()
        except Unavailable as error:
            logger.warning("Kafka is unavailable, so this run sends nothing again: %s", error)
            return None

    async def _decide(self, due: Sequence[OutboxEntry], window: SendWindow, run: RelayRun) -> list[UUID]:
        """Carry out the decisions without a record. Return the events to send again, in the order of `due`."""
        in_log = await self._event_store.logged([entry.event_id for entry in due])
        missing = [entry for entry in due if entry.event_id not in in_log]
        found = [entry for entry in due if entry.event_id in in_log]
        equal = [entry.event_id for entry in found if in_log[entry.event_id].digest == entry.digest]
        conflicting = list(in_log.keys() - set(equal))
        confirmed = await self._below_head({event_id: in_log[event_id].seq for event_id in equal})
        await self._dead_letters.finish_stored({event_id: in_log[event_id].digest for event_id in confirmed})
        run.confirmed += await self._outbox.confirm(confirmed, self._kept)
        run.conflicting += await self._outbox.stop_retrying(conflicting, "conflicting")
        if missing and window.backlog is not None:
            return await self._still_missing(missing, window.backlog, window, run)
        return []

    async def _below_head(self, seqs: Mapping[UUID, Seq]) -> list[UUID]:
        """Return the events up to the noted head. Events that were stored since get a newer head first."""
        if any(seq > self._head for seq in seqs.values()):
            await self._note_head()
        return [event_id for event_id, seq in seqs.items() if seq <= self._head]

    async def _still_missing(
        self, missing: Sequence[OutboxEntry], backlog: Backlog, window: SendWindow, run: RelayRun
    ) -> list[UUID]:
        """Stop retrying dead and stuck events, and hold events in the backlog. Return the events to send again."""
        rejected = await self._dead_letters.dead([entry.event_id for entry in missing])
        dead = {entry.event_id for entry in missing if (entry.event_id, entry.digest) in rejected}
        held = {
            entry.event_id for entry in missing if backlog.may_hold(entry.key, entry.sent_at + self._clock_skew)
        } - dead
        stuck = {entry.event_id for entry in missing if entry.tries >= self._settings.relay_max_tries} - dead - held
        run.dead += await self._outbox.stop_retrying(list(dead), "dead")
        run.stuck += await self._outbox.stop_retrying(list(stuck), "stuck")
        to_send = [entry.event_id for entry in missing if entry.event_id not in dead | held | stuck]
        allowed = await window.take(len(to_send))
        run.held += await self._outbox.hold([*held, *to_send[allowed:]])
        return to_send[:allowed]

    async def _send_again(self, ids: Sequence[UUID], until: float, run: RelayRun) -> None:
        """Send the events, with at most `relay_bytes` of them in memory. Stop when Kafka becomes unavailable."""
        sizes = await self._outbox.sizes(ids)
        existing = [event_id for event_id in ids if event_id in sizes]
        for chunk in _chunks(existing, sizes.__getitem__, self._settings.relay_bytes):
            loaded = await self._outbox.load(chunk)
            unreadable = [event_id for event_id, event in loaded.items() if isinstance(event, Rejected)]
            newer = [event_id for event_id, event in loaded.items() if isinstance(event, Unavailable)]
            run.unreadable += await self._outbox.stop_retrying(unreadable, "unreadable")
            run.held += await self._outbox.postpone(newer)
            events = [event for event_id in chunk if isinstance(event := loaded.get(event_id), Event)]
            await self._send([(event, encode_kafka(event)) for event in events], run)
            if run.unsent or self._clock() >= until:
                return

    async def _send(self, events: Sequence[tuple[Event, KafkaRecord]], run: RelayRun) -> None:
        """Set the next try before sending: a process that dies in between delays events and loses no event.

        A chunk is no larger than the sender's capacity, so the sender refuses no record for lack of room. A try that
        Kafka did not accept is taken back.
        """
        for chunk in _chunks(events, lambda pair: pair[1].size, self._settings.send_capacity_bytes):
            await self._outbox.postpone([event.event_id for event, _ in chunk])
            outcomes = await self._sender.send([record for _, record in chunk])
            unsent: list[UUID] = []
            for (event, record), outcome in zip(chunk, outcomes, strict=True):
                if isinstance(outcome, Rejected):
                    await self._dead_letter(event, record, outcome, run)
                elif outcome is not None:
                    unsent.append(event.event_id)
                else:
                    run.resent += 1
            if unsent:
                run.unsent += await self._outbox.uncount_try(unsent)
                return

    async def _dead_letter(self, event: Event, record: KafkaRecord, reason: Rejected, run: RelayRun) -> None:
        headers = [(name.replace("ce_", "ce-", 1).encode(), value) for name, value in record.headers]
        delivered = DeliveredEvent(event.to_document())
        await self._dead_letters.keep(DeadLetter(headers, record.value, reason, None, None, delivered))
        run.dead += await self._outbox.stop_retrying([event.event_id], "dead")


_Item = TypeVar("_Item")


def _chunks(items: Iterable[_Item], size: Callable[[_Item], int], most: int) -> Iterator[list[_Item]]:
    """Yield the items in their order, in chunks of at most `most` in total. A larger item is a chunk of its own."""
    chunk: list[_Item] = []
    total = 0
    for item in items:
        if chunk and total + size(item) > most:
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += size(item)
    if chunk:
        yield chunk


def open_relay(database: Database, sender: Sender, settings: RelaySettings, telemetry: Telemetry = SILENT) -> Relay:
    """Return a relay with the real clock and the consumer group's real backlog."""
    backlog = partial(asyncio.to_thread, read_backlog, settings)
    return Relay(database, sender, settings, time.monotonic, backlog, telemetry=telemetry)
