"""MongoDB, read directly by the demo and the fault suite: only documents that a majority has."""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

Document = dict[str, Any]

CODEC: CodecOptions[Document] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD, tz_aware=True)
_ANSWER_WITHIN_MS = 10_000
_RESUME_WITHIN_S = 60.0
_CATCH_UP_WITHIN_S = 30.0


@contextmanager
def majority(uri: str, name: str) -> Iterator[Database[Document]]:
    """Open the database of that name with read concern `majority`."""
    with MongoClient[Document](
        uri, socketTimeoutMS=_ANSWER_WITHIN_MS, serverSelectionTimeoutMS=_ANSWER_WITHIN_MS
    ) as client:
        yield client.get_database(name, codec_options=CODEC, read_concern=ReadConcern("majority"))


class ChangeFollower:
    """Calls `note` in a thread with every change of a collection, in the server's order, through fail-overs.

    `failure` is None, or the reason for a gap.
    """

    def __init__(
        self,
        collection: Collection[Document],
        pipeline: Sequence[Mapping[str, Any]],
        note: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.failure: str | None = None
        self._open = functools.partial(collection.watch, list(pipeline), max_await_time_ms=200)
        self._note = note
        self._idle = 0
        self._stream = self._open()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ending.is_set():
            try:
                change = self._stream.try_next()
            except PyMongoError as error:
                self._resume(error)
                continue
            if change is None:
                self._idle += 1
            else:
                self._note(change)

    def _resume(self, error: PyMongoError) -> None:
        """Go on behind the last change. A failure to do so is a gap."""
        token, until = self._stream.resume_token, time.monotonic() + _RESUME_WITHIN_S
        while time.monotonic() < until and not self._ending.wait(0.2):
            try:
                self._stream = self._open(resume_after=token)
            except PyMongoError as again:
                error = again
            else:
                return
        self.failure = f"{type(error).__name__}: {error}"
        self._ending.set()

    def catch_up(self) -> None:
        """Return when every change until now was noted: the server had no further change, twice."""
        before, deadline = self._idle, time.monotonic() + _CATCH_UP_WITHIN_S
        while self._idle < before + 2 and self.failure is None:
            if time.monotonic() > deadline:
                self.failure = f"the changes did not end within {_CATCH_UP_WITHIN_S:g} s"
            time.sleep(0.05)

    def close(self) -> None:
        """End the stream and the thread."""
        self._ending.set()
        self._thread.join()
        self._stream.close()
