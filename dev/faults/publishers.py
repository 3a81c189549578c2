"""The background load: many concurrent publishers over HTTP, and a ledger of every 2xx."""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Literal, NamedTuple
from uuid import UUID

from dev.comparison import SentEvent
from dev.load.events import EventJson, EventRequest, batch, binary, new_order, structured
from dev.load.producer import Answer, Producer, share
from dev.servers.issuer import token

PUBLISHERS = 32
ANSWER_WITHIN_S = 12.0
BATCH_SHARE = 0.05
LARGEST_BATCH = 60
AGAIN_SHARE = 0.06
OTHER_SHARE = 0.02


class Item(NamedTuple):
    """An event of a request, and its purpose."""

    sent: SentEvent
    intent: Literal["new", "again", "other", "bound"]
    """`again` repeats an accepted event. `other` has new content under the id of an accepted event. `bound` is an event
    that `publish` may refuse."""


@dataclass
class Ledger:
    """The knowledge of the publishers. The thread of the load writes it, and other threads may read it."""

    acknowledged: dict[UUID, SentEvent] = field(default_factory=dict)
    late: dict[UUID, SentEvent] = field(default_factory=dict)
    """Accepted new content under an acknowledged id: the first event had left `events` by then."""
    bounds: set[UUID] = field(default_factory=set)
    """The accepted events at a bound."""
    made: int = 0
    """The number of made events: their markers are the numbers below."""
    surprises: list[str] = field(default_factory=list)
    """Wrong answers of `publish`."""

    def take(self, item: Item) -> None:
        """Note a 2xx for an event."""
        if item.intent == "bound":
            self.bounds.add(item.sent.event_id)
        (self.late if item.intent == "other" else self.acknowledged)[item.sent.event_id] = item.sent


def other_content(event: EventJson) -> EventJson:
    """Return another event under the same id."""
    return {**event, "data": {**event["data"], "price": -1.5}}


def encode(items: Sequence[Item], rng: random.Random) -> EventRequest:
    """Return a batch, or a request in any of the three modes for a single event."""
    mode = rng.choice((binary, structured, batch)) if len(items) == 1 else batch
    return mode([item.sent.event for item in items])


class BackgroundLoad:
    """Publishes about `rate` events a second from its own thread, until `end`.

    Any thread may change `urls`, and add to `waiting` the items that are published next. While `calm` is set, no
    accepted id gets other content; `contested` has the ids that got it, or may get it. `expired` returns ids of events
    that have left `events`: the load tries them again.
    """

    def __init__(self, url: str, run: str, seed: int, rate: float, expired: Callable[[], Sequence[UUID]]) -> None:
        self.urls: tuple[str, ...] = (url,)
        self.ledger = Ledger()
        self.waiting: deque[Item] = deque()
        self.calm = threading.Event()
        self.contested: set[UUID] = set()
        self._random = random.Random(seed)
        self.producer = Producer(
            lambda: self._random.choice(self.urls),
            token(),
            connections=PUBLISHERS,
            answer_within_s=ANSWER_WITHIN_S,
            rng=self._random,
        )
        self._run_name = run
        self._rate = rate
        self._expired = expired
        self._known: list[SentEvent] = []
        self._making = threading.Lock()
        self._hurry = threading.Event()
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self.thread = threading.Thread(target=self._main, name="load", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self.thread.start()

    def hurry(self, on: bool) -> None:
        """Publish as fast as possible, or at `rate` again."""
        (self._hurry.set if on else self._hurry.clear)()

    def orders(self, count: int) -> list[EventJson]:
        """Make new events, each with a marker of its own. Any thread may call it."""
        with self._making:
            first, self.ledger.made = self.ledger.made, self.ledger.made + count
            return [new_order(self._run_name, marker, self._random) for marker in range(first, first + count)]

    def end(self) -> None:
        """Begin no more requests, and return when every request has its answer. Raises the failure of the load."""
        self._ending.set()
        self.thread.join()
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._publish_all())
        except BaseException as error:  # noqa: BLE001 - `end` raises it again, in the waiting thread
            self._failure = error

    async def _publish_all(self) -> None:
        async with aclosing(self.producer):
            await share(self._due_times(), PUBLISHERS, self._publish)

    def _due_times(self) -> Iterator[float]:
        """Yield the due time of every request. After a stall the late requests come at once."""
        due = time.monotonic()
        while not self._ending.is_set():
            if self._hurry.is_set():
                due = time.monotonic()
            yield due
            due += (1 + BATCH_SHARE * LARGEST_BATCH / 2) / self._rate

    async def _publish(self, due: float) -> None:
        """Wait in short naps, because another thread may end the wait. Then publish."""
        while (wait := due - time.monotonic()) > 0 and not (self._hurry.is_set() or self._ending.is_set()):  # noqa: ASYNC110
            await asyncio.sleep(min(wait, 0.05))
        await self.producer.publish(self._choose(), partial(encode, rng=self._random), self._note)

    def _choose(self) -> list[Item]:
        if self.waiting:
            return [self.waiting.popleft()]
        choice = self._random.random()
        if choice < OTHER_SHARE + AGAIN_SHARE and self._known:
            return [self._accepted_again(other=choice < OTHER_SHARE)]
        return self._new(self._random.randint(2, LARGEST_BATCH) if choice > 1 - BATCH_SHARE else 1)

    def _new(self, count: int) -> list[Item]:
        return [Item(SentEvent.of(event), "new") for event in self.orders(count)]

    def _accepted_again(self, *, other: bool) -> Item:
        """Repeat an accepted event, or its id with new content. Prefer an event that has expired."""
        expired = self._expired()
        event_id = self._random.choice(expired) if expired and self._random.random() < 0.7 else None
        sent = self.ledger.acknowledged.get(event_id) if event_id else None
        sent = sent or self._random.choice(self._known)
        if sent.event_id in self.contested or (other and self.calm.is_set()):
            return self._new(1)[0]
        if not other:
            return Item(sent, "again")
        self.contested.add(sent.event_id)
        return Item(SentEvent.of(other_content(sent.event)), "other")

    def _note(self, item: Item, answer: Answer) -> None:
        """Note the answer for an event. A refusal is right only for new content under an accepted id."""
        if answer["status"] == HTTPStatus.ACCEPTED:
            if item.intent == "new":
                self._known.append(item.sent)
            self.ledger.take(item)
            if answer["event_id"] != str(item.sent.event_id):
                self.ledger.surprises.append(f"event {item.sent.marker} was accepted as {answer['event_id']}")
        elif item.intent == "bound" and 400 <= answer["status"] < 500:
            return
        elif answer.get("title") != "identity-conflict" or not (
            item.intent == "other" or item.sent.event_id in self.contested
        ):
            self.ledger.surprises.append(f"event {item.sent.marker} ({item.intent}) was answered {answer}"[:300])
