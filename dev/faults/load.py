"""The load: many concurrent publishers over HTTP, who try again as real producers do, and remember every 2xx."""

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx

from dev.faults.producer import Item, Request, Sent, new_event, other_content, request_of, sent_of
from dev.servers.issuer import token

PUBLISHERS = 32
ANSWER_WITHIN_S = 12.0
LONGEST_PAUSE_S = 1.0
BATCH_SHARE = 0.05
LARGEST_BATCH = 60
AGAIN_SHARE = 0.06
OTHER_SHARE = 0.02


@dataclass
class Ledger:
    """What the publishers know. Only the load's thread writes it; others may read it at any time."""

    acknowledged: dict[UUID, Sent] = field(default_factory=dict)
    """What got a 2xx."""
    late: dict[UUID, Sent] = field(default_factory=dict)
    """Other content that got a 2xx under an acknowledged id: its first event had left `events` by then."""
    made: int = 0
    """How many events were made; the markers are those below it."""
    retries: int = 0
    surprises: list[str] = field(default_factory=list)
    """Answers that no producer should get."""

    def take(self, item: Item) -> None:
        """Note a 2xx for an event."""
        (self.late if item.intent == "other" else self.acknowledged)[item.sent.event_id] = item.sent


class Load:
    """Publishes until told to end, about `rate` events a second, from a thread of its own.

    `urls` may be changed at any time. `expired` names events that have left `events`: ids to try again.
    """

    def __init__(self, url: str, run: str, seed: int, rate: float, expired: Callable[[], Sequence[UUID]]) -> None:
        self.urls: tuple[str, ...] = (url,)
        self.ledger = Ledger()
        self.in_flight = 0
        """Requests without an answer now."""
        self._run_name = run
        self._random = random.Random(seed)
        self._rate = rate
        self._expired = expired
        self._known: list[Sent] = []
        self._contested: set[UUID] = set()
        self._hurry = threading.Event()
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="load", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def hurry(self, on: bool) -> None:
        """Whether to publish as fast as it goes."""
        (self._hurry.set if on else self._hurry.clear)()

    def end(self) -> None:
        """Begin nothing more, and return when every request has its answer. Raises what the load failed with."""
        self._ending.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @property
    def alive(self) -> bool:
        """Whether it publishes."""
        return self._thread.is_alive()

    def _main(self) -> None:
        try:
            asyncio.run(self._publish_all())
        except BaseException as error:  # noqa: BLE001 - raised again by `end`, in the thread that waits
            self._failure = error

    async def _publish_all(self) -> None:
        limits = httpx.Limits(max_connections=PUBLISHERS + 8, max_keepalive_connections=PUBLISHERS)
        async with httpx.AsyncClient(
            headers={"authorization": f"Bearer {token()}"}, limits=limits, timeout=ANSWER_WITHIN_S, trust_env=False
        ) as client:
            pace = self._pace()
            await asyncio.gather(*(self._work(client, pace) for _ in range(PUBLISHERS)))

    def _pace(self) -> Iterator[float]:
        """The moments of the requests: after a stall, those that are late come at once."""
        due = time.monotonic()
        while True:
            if self._hurry.is_set():
                due = time.monotonic()
            yield due
            due += (1 + BATCH_SHARE * LARGEST_BATCH / 2) / self._rate

    async def _work(self, client: httpx.AsyncClient, pace: Iterator[float]) -> None:
        while not self._ending.is_set():
            due = next(pace)
            await self._until(due)
            await self._see_through(client, self._choose())

    async def _until(self, due: float) -> None:
        """Wait for the moment, in short naps: another thread may end the wait."""
        while (wait := due - time.monotonic()) > 0 and not (self._hurry.is_set() or self._ending.is_set()):  # noqa: ASYNC110
            await asyncio.sleep(min(wait, 0.05))

    def _choose(self) -> list[Item]:
        what = self._random.random()
        if what < OTHER_SHARE + AGAIN_SHARE and self._known:
            return [self._known_again(other=what < OTHER_SHARE)]
        return self._new(self._random.randint(2, LARGEST_BATCH) if what > 1 - BATCH_SHARE else 1)

    def _new(self, count: int) -> list[Item]:
        first, self.ledger.made = self.ledger.made, self.ledger.made + count
        events = [new_event(self._run_name, marker, self._random) for marker in range(first, first + count)]
        return [Item(sent_of(event), "new") for event in events]

    def _known_again(self, *, other: bool) -> Item:
        """One that was accepted: the same again, or other content under its id. Rather one that has expired."""
        expired = self._expired()
        event_id = self._random.choice(expired) if expired and self._random.random() < 0.7 else None
        sent = self.ledger.acknowledged.get(event_id) if event_id else None
        sent = sent or self._random.choice(self._known)
        if sent.event_id in self._contested:
            return self._new(1)[0]
        if not other:
            return Item(sent, "again")
        self._contested.add(sent.event_id)
        return Item(sent_of(other_content(sent.event)), "other")

    async def _see_through(self, client: httpx.AsyncClient, items: list[Item]) -> None:
        """Post until each has its answer; what had none is sent again, with the same id, a little later."""
        pause = 0.05
        while items:
            request = request_of(items, self._random)
            answers = await self._post(client, request, len(items))
            again = [item for item, answer in zip(items, answers, strict=True) if self._is_unanswered(item, answer)]
            if len(again) == len(items):
                self.ledger.retries += 1
                await asyncio.sleep(pause * self._random.uniform(0.5, 1.5))
                pause = min(pause * 2, LONGEST_PAUSE_S)
            items = again

    async def _post(self, client: httpx.AsyncClient, request: Request, count: int) -> list[dict[str, Any]]:
        """The answer for each event of the request: its `status`, and `title` if it was refused."""
        self.in_flight += 1
        try:
            url = self._random.choice(self.urls)
            response = await client.post(url, headers=request.headers, content=request.body)
        except httpx.TransportError:
            return [{"status": HTTPStatus.SERVICE_UNAVAILABLE}] * count
        finally:
            self.in_flight -= 1
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return [{"status": response.status_code}] * count
        said = json.loads(response.content)
        return said["results"] if "results" in said else [{"status": response.status_code} | said] * count

    def _is_unanswered(self, item: Item, answer: dict[str, Any]) -> bool:
        """Whether the event is to be sent again; if not, note what became of it."""
        status, title = answer["status"], answer.get("title")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return True
        if status == HTTPStatus.ACCEPTED:
            if item.intent == "new":
                self._known.append(item.sent)
            self.ledger.take(item)
            if answer["event_id"] != str(item.sent.event_id):
                self.ledger.surprises.append(f"event {item.sent.marker} was taken as {answer['event_id']}")
        elif title != "identity-conflict" or (item.intent != "other" and item.sent.event_id not in self._contested):
            self.ledger.surprises.append(f"event {item.sent.marker} ({item.intent}) was answered {answer}"[:300])
        return False
