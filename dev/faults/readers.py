"""A reader of the feed, which does what docs/operations.md tells readers to do after a loss of the log."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx

from dev.servers.issuer import token

_ANSWER_WITHIN_S = 30.0
_PAUSE_S = 0.2


class FeedReader:
    """Follows the feed from its own thread, until `end`, with `limit` events a page and `pause_s` after a page.

    503: it waits. 410: it waits until an operator told it the time of the loss, and begins again there, or at its last
    event if this is earlier.
    """

    def __init__(self, name: str, url: str, limit: int, pause_s: float) -> None:
        self.name = name
        self.got: set[UUID] = set()
        self.failures: list[str] = []
        """Answers that no document names."""
        self.begun_again = 0
        self.read_to = datetime.min.replace(tzinfo=UTC)
        """The reader has every event that was stored before this time."""
        self._url = url
        self._limit = limit
        self._pause_s = pause_s
        self._last: datetime | None = None
        self._losses: list[datetime] = []
        self._hurrying = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"feed-{name}", daemon=True)

    def start(self) -> None:
        """Begin with the first event."""
        self._thread.start()

    def told(self, since: datetime) -> None:
        """Learn the time of a loss, or of the backup that was restored."""
        self._losses.append(since)

    def hurry(self) -> None:
        """Pause no more."""
        self._hurrying.set()

    def end(self) -> None:
        """Read no more."""
        self._ending.set()
        self._thread.join()

    def _main(self) -> None:
        headers = {"authorization": f"Bearer {token()}"}
        with httpx.Client(headers=headers, timeout=_ANSWER_WITHIN_S, trust_env=False) as client:
            start: Mapping[str, str] = {}
            while not self._ending.is_set():
                start = self._read(client, start)

    def _read(self, client: httpx.Client, start: Mapping[str, str]) -> Mapping[str, str]:
        """Read a page. Return the parameters of the next request."""
        try:
            answer = client.get(self._url, params={"limit": self._limit, "wait_s": 1, **start})
        except httpx.TransportError:
            self._ending.wait(_PAUSE_S)
            return start
        if answer.status_code == HTTPStatus.OK:
            self._take(answer.json())
            self._hurrying.wait(self._pause_s)
            return {"cursor": answer.json()["cursor"]}
        self._ending.wait(_PAUSE_S)
        if answer.status_code == HTTPStatus.GONE:
            return self._begin_again() if self._losses else start
        if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            self.failures.append(f"{answer.status_code} {answer.text[:200]}")
        return start

    def _take(self, page: Mapping[str, Any]) -> None:
        self.got.update(UUID(event["event_id"]) for event in page["events"])
        times = [event["stored_at"] for event in page["events"] if "stored_at" in event]
        if times:
            self._last = datetime.fromisoformat(times[-1])
        if not page["events"]:
            self.read_to = datetime.fromisoformat(page["safe_time"])

    def _begin_again(self) -> Mapping[str, str]:
        losses, self._losses = self._losses, []
        self.begun_again += 1
        if self._last is None:
            return {}
        return {"since": f"{min(*losses, self._last).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
