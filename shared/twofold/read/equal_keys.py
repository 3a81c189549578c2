"""The events of one key at the end of a page. A page never ends between two of them.

The key of a page is (`timestamp`, `order`), in other sortings with a value in front. A publisher never gives an order
twice, but two publishers can: then events with equal keys have no order among themselves, and a cursor, which names a
key, cannot stand between them. So a page that is full reads on to the end of the equal keys. A group has as many events
as publishers gave this order, so the reading on is short. `MAX_EQUAL` and `MAX_EQUAL_BYTES` bound it for a group that
somebody made in the database or in Kafka.
"""

from typing import Any
from uuid import UUID

from twofold.errors import Unreadable
from twofold.mongo.client import Collection, Document, RawDocument
from twofold.mongo.documents import undecoded
from twofold.query.filters import Filter, PageKey

MAX_EQUAL = 1000
"""The most events that a full page takes up besides, because their key is that of its last event."""
MAX_EQUAL_BYTES = 32 * 1024 * 1024
"""The most bytes of these events in MongoDB."""


class EqualKeys:
    """The events with the key of the last event that a reader looked at."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._key: PageKey | None = None
        self._ids: list[Any] = []
        self.last: Document | None = None
        """The last event with a key."""

    def add(self, document: Document) -> None:
        """Note the next event. An event without a key, after a change in the database, belongs to no group."""
        key = self._wanted.key(document)
        if key is None:
            return
        if key != self._key:
            self._key, self._ids = key, []
        self._ids.append(document["_id"])
        self.last = document

    def start(self, document: Document) -> None:
        """Begin with a document's key, and with no event of it."""
        self.last, self._key, self._ids = document, self._wanted.key(document), []

    def continues_with(self, document: RawDocument) -> bool:
        """Return True if the next event has the key of the last event."""
        return self._key is not None and self._wanted.key(document) == self._key

    async def rest(self, collection: Collection, hint: str) -> list[RawDocument]:
        """Return the events of the group that the reader has not looked at.

        Raises `Unreadable` if they are more than `MAX_EQUAL`, or larger than `MAX_EQUAL_BYTES`.
        """
        if self.last is None:
            return []
        seen: set[UUID] = set(self._ids)
        rest: list[RawDocument] = []
        size = 0
        query = self._wanted.query_at(self.last)
        async with undecoded(collection).find(query, hint=hint).limit(len(seen) + MAX_EQUAL + 1) as found:
            async for document in found:
                if document["_id"] not in seen:
                    rest.append(document)
                    size += len(document.raw)
                if len(rest) > MAX_EQUAL or size > MAX_EQUAL_BYTES:
                    raise Unreadable(
                        f"too many events have the time {self.last['timestamp'].isoformat()} and the order "
                        f"{self.last['order']} for one page: narrow the filters. No publisher wrote them so"
                    )
        return rest
