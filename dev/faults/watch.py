"""What happened in `events`, in the server's order: each insert and each expiry that a majority has."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bson.timestamp import Timestamp
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

Document = dict[str, Any]

GIVE_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Inserted:
    """A new document in `events`."""

    event_id: UUID
    seq: Timestamp
    digest: bytes
    payload: Document


@dataclass(frozen=True, slots=True)
class Deleted:
    """A document that left `events`, and when, in cluster time."""

    event_id: UUID
    at: Timestamp


Change = Inserted | Deleted


def change_of(document: Document) -> Change:
    """What a change stream says."""
    event_id = document["documentKey"]["_id"]
    if document["operationType"] == "delete":
        return Deleted(event_id, document["clusterTime"])
    full = document["fullDocument"]
    return Inserted(event_id, full["seq"], full["digest"], full["payload"])


_PIPELINE: list[Document] = [
    {"$match": {"operationType": {"$in": ["insert", "delete"]}}},
    {
        "$project": {
            "operationType": 1,
            "documentKey": 1,
            "clusterTime": 1,
            **{f"fullDocument.{name}": 1 for name in ("seq", "digest", "payload")},
        }
    },
]


class Watcher:
    """Follows `events` from its start on, through fail-overs, without a gap; or says that it could not."""

    def __init__(self, events: Collection[Document]) -> None:
        self.changes: list[Change] = []
        self.expired: list[UUID] = []
        self.failure: str | None = None
        self._idle = 0
        self._events = events
        self._stream = events.watch(_PIPELINE, max_await_time_ms=200)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()

    def recently_expired(self) -> Sequence[UUID]:
        """Some ids that have left `events`."""
        return self.expired[-1000:]

    def _watch(self) -> None:
        while not self._ending.is_set():
            try:
                change = self._stream.try_next()
            except PyMongoError as error:
                self._open_again(error)
                continue
            if change is None:
                self._idle += 1
            else:
                self._note(change_of(dict(change)))

    def _note(self, change: Change) -> None:
        self.changes.append(change)
        if isinstance(change, Deleted):
            self.expired.append(change.event_id)

    def _open_again(self, error: PyMongoError) -> None:
        """Behind the last change that was seen. Without that there is a gap, and the watch is worth nothing."""
        token, until = self._stream.resume_token, time.monotonic() + GIVE_UP_S
        while time.monotonic() < until and not self._ending.wait(0.2):
            try:
                self._stream = self._events.watch(_PIPELINE, max_await_time_ms=200, resume_after=token)
            except PyMongoError as again:
                error = again
            else:
                return
        self.failure = f"{type(error).__name__}: {error}"
        self._ending.set()

    def catch_up(self, within_s: float = 30.0) -> None:
        """Return when all that happened until now was seen: the server had nothing more, twice."""
        before, deadline = self._idle, time.monotonic() + within_s
        while self._idle < before + 2 and self.failure is None:
            if time.monotonic() > deadline:
                self.failure = f"the changes of `events` did not come to an end within {within_s:g} s"
            time.sleep(0.05)

    def close(self) -> None:
        """End the watch."""
        self._ending.set()
        self._thread.join()
        self._stream.close()
