"""Scans of an index in chunks. A chunk has a bounded number of index keys, so its query ends even without a match.

The paging proof: a reader of successive pages gets every event once, while producers insert other events.

1. The last fields of an index are `timestamp` and `order`. No function changes the fields of an index in a stored
   event. Events can have equal keys: a group.
2. A cursor is a key. The next query asks for keys strictly after the cursor, in the order of the page. A key is either
   after a cursor or not after it, so no event is on both sides, and no event comes twice.
3. A page moves its cursor only over keys whose events it looked at, all of them: before it ends, also when it ends
   early, it reads the rest of the group of its last event (`equal_keys.py`). An event that existed when the reader
   began therefore lies before the cursor and was shown, or lies after the cursor and is still to come.
4. An insert changes no key of another event, so it moves no event across a cursor. An event that is inserted behind
   the cursor comes once. An event that is inserted at or before the cursor does not come: the reader passed its key.

Chunks keep the same order. The end of a chunk is a key. The chunk has every event of this key, and the next chunk
begins strictly after it. The server finds the end by counting index keys, then reads the matching documents up to the
end.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Never

from bson.max_key import MaxKey
from pymongo.asynchronous.cursor import AsyncCursor

from twofold.errors import Unreadable
from twofold.event.order import MAX_ORDER
from twofold.mongo.client import Collection, Document, RawDocument
from twofold.mongo.documents import undecoded
from twofold.query.filters import Filter, PageKey, Ranged

GROWTH = 16
"""The largest chunk, as a multiple of the first chunk. A chunk has twice as many keys as the chunk before it, so no
chunk takes much longer than its predecessors together."""
SEARCH_BATCH = 500
"""Events of one batch in a search for text. Other requests run between two batches."""
PAGE_BATCH = 100
"""Events of one batch on a page, where events may be large."""

_ONLY_KEY: Document = {"_id": 0}
"""The projection to fields of the index: then the server reads no document."""
_HAS_ORDER: Document = {"order": {"$gte": 0}}
"""A chunk ends at an event with a key. A document without an order, changed in the database, has no key."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The matching documents of one chunk, and its last index key. `end` is None for the last chunk."""

    found: AsyncCursor[RawDocument]
    end: Document | None


async def chunks_by_time(
    collection: Collection, wanted: Filter, hint: str, field: str | None, first_keys: int
) -> AsyncGenerator[Chunk]:
    """Yield the chunks of `wanted` in the order of time, by the index `hint`: `field`, then time, then order.

    The first chunk has `first_keys` keys. If `wanted` compares no other field, every key matches, and one chunk is
    enough.
    """
    if not wanted.asks_more_than(field):
        yield Chunk(_limit(undecoded(collection).find(wanted.query(), hint=hint).sort(wanted.sort), wanted), None)
        return
    rest, keys = wanted, first_keys
    while True:
        keyed = {"$and": [rest.query_by(field), _HAS_ORDER]}
        ends = collection.find(keyed, _ONLY_KEY | {"timestamp": 1, "order": 1}, hint=hint).sort(wanted.sort)
        end = await anext(ends.skip(keys - 1).limit(1), None)
        found = undecoded(collection).find(rest.query(end), hint=hint).sort(wanted.sort)
        yield Chunk(_limit(found, wanted), end)
        if end is None:
            return
        rest, keys = wanted.model_copy(update={"cursor": cursor_after(wanted, end)}), min(2 * keys, GROWTH * first_keys)


async def chunks_in_order(
    collection: Collection, wanted: Filter, hint: str, after: PageKey | None, first_keys: int
) -> AsyncGenerator[Chunk]:
    """Yield the chunks of `wanted` in the order of the index `hint`, beginning after the key `after`."""
    query, names, keys = Ranged.query(wanted), [name for name, _ in wanted.sort], first_keys
    while True:
        end = None
        if query or wanted.text is not None:
            has_key = _HAS_ORDER | {names[0]: {"$type": "string"}}
            ends = _between(
                collection.find(has_key, _ONLY_KEY | dict.fromkeys(names, 1), hint=hint), wanted, after, None
            )
            end = await anext(ends.skip(keys - 1).limit(1), None)
        until = None if end is None else wanted.key(end) or raise_no_cursor()
        found = _between(undecoded(collection).find(query, hint=hint), wanted, after, until)
        yield Chunk(_limit(found, wanted), end)
        if until is None:
            return
        after, keys = until, min(2 * keys, GROWTH * first_keys)


def cursor_after(wanted: Filter, document: Document | None) -> str:
    """Return the cursor behind a document. Raise `Unreadable` without a document, or if it has no time or order."""
    return (document and wanted.next_cursor(document)) or raise_no_cursor()


def raise_no_cursor() -> Never:
    """Raise `Unreadable`: no event is left that a cursor could name."""
    raise Unreadable("the events at this place have no readable time or order: they were changed in the database")


def _limit(found: AsyncCursor[RawDocument], wanted: Filter) -> AsyncCursor[RawDocument]:
    """Read at most one event beyond the page. MongoDB can't match text, so a search for text has no such limit."""
    if wanted.text is not None:
        return found.batch_size(SEARCH_BATCH)
    return found.limit(wanted.limit + 1).batch_size(min(wanted.limit + 1, PAGE_BATCH))


def _between(found: AsyncCursor[Any], wanted: Filter, after: PageKey | None, until: PageKey | None) -> AsyncCursor[Any]:
    """Bound the scan to the keys after `after`, up to and including `until`. `min` includes its key, `max` does not."""
    names = [name for name, _ in wanted.sort]
    if wanted.sort[0][1] == 1:
        low, high = after and _next_key(after), until and _next_key(until)
    else:
        low, high = until, after
    found = found.sort(wanted.sort)
    if low is not None:
        found = found.min(list(zip(names, low, strict=True)))
    return found if high is None else found.max(list(zip(names, high, strict=True)))


def _next_key(key: PageKey) -> PageKey:
    """Return the lowest key above `key`. The order is a whole number."""
    *before, order = key
    return (*before, order + 1 if order < MAX_ORDER else MaxKey())
