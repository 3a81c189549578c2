"""A producer as applications have it: many requests at a time, and a retry for every event without an answer.

`benchmarks.generator` measures rates, so it writes ready-made bytes to sockets and shares no code with this module.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from dev.load.events import EventRequest

T = TypeVar("T")
Answer = Mapping[str, Any]
"""The answer for an event: its `status`, with `event_id` and `result`, or with the `title` of a problem."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class Producer:
    """Posts events, and posts again every event whose answer is a broken connection or status 503.

    `url` is called for each request. `tries` limits the requests for an event. The lengths of
    the pauses between them come from `rng`.
    """

    def __init__(
        self,
        url: Callable[[], str],
        token: str | None,
        *,
        connections: int,
        answer_within_s: float,
        tries: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.in_flight = 0
        """The requests without an answer yet."""
        self.retries = 0
        self._url = url
        self._tries = tries
        self._random = rng or random.Random()
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"} if token else {},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=answer_within_s,
            trust_env=False,
        )
        self.aclose = self._client.aclose

    async def publish(
        self, items: Sequence[T], encode: Callable[[Sequence[T]], EventRequest], note: Callable[[T, Answer], None]
    ) -> None:
        """Post the items in one request. Repeat it for the unanswered items. Call `note` for every answer."""
        pause, tries = _FIRST_PAUSE_S, 0
        while items:
            answers, tries = await self._post(encode(items), len(items)), tries + 1
            unanswered = []
            for item, answer in zip(items, answers, strict=True):
                if answer["status"] == HTTPStatus.SERVICE_UNAVAILABLE and tries != self._tries:
                    unanswered.append(item)
                else:
                    note(item, answer)
            if len(unanswered) == len(items):
                self.retries += 1
                await asyncio.sleep(pause * self._random.uniform(0.5, 1.5))
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            items = unanswered

    async def _post(self, request: EventRequest, count: int) -> Sequence[Answer]:
        self.in_flight += 1
        try:
            response = await self._client.post(self._url(), headers=request.headers, content=request.body)
        except httpx.TransportError:
            return [{"status": HTTPStatus.SERVICE_UNAVAILABLE}] * count
        finally:
            self.in_flight -= 1
        return answers_of(response, count)


def answers_of(response: httpx.Response, count: int) -> Sequence[Answer]:
    """Return the answers for the `count` events of a request."""
    content = json.loads(response.content) if "json" in response.headers.get("content-type", "") else {}
    if results := content.get("results"):
        return list(results)
    if response.is_server_error or not content:
        return [{"status": response.status_code, "text": response.text[:200]}] * count
    return [{"status": response.status_code, **content}] * count


async def share(items: Iterable[T], workers: int, work: Callable[[T], Awaitable[None]]) -> None:
    """Call `work` for every item, with `workers` calls at a time."""
    remaining = iter(items)

    async def take_items() -> None:
        for item in remaining:
            await work(item)

    await asyncio.gather(*(take_items() for _ in range(workers)))
