"""Scans of an index in chunks. A chunk has a bounded number of index keys, so its query ends even without a match.

The paging proof: a reader of successive pages gets every event once, while producers insert other events.

1. The order of an index is total, because `_id` is its last field and is unique. No function changes these fields of a
   stored event.
2. A cursor is the key of one event. The next query asks for keys strictly after the cursor, in the order of the page.
   A key is either after a cursor or not after it, so no event is on both sides, and no event comes twice.
3. A page moves its cursor only over keys that its query looked at, also when it stops early. An event that existed when
   the reader began therefore lies before the cursor and was shown, or lies after the cursor and is still to come.
4. An insert changes no key of another event, so it moves no event across a cursor. An event that is inserted behind
   the cursor comes once. An event that is inserted before the cursor does not come: the reader passed its place before.

Chunks keep the same order. The end of a chunk is the key of its last document, and the next chunk begins strictly after
that key. The server finds the end by counting index keys, then reads the matching documents up to the end.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Never

from pymongo.asynchronous.cursor import AsyncCursor

from twofold.errors import Unreadable
from twofold.mongo.client import Collection, Document, RawDocument
from twofold.mongo.documents import undecoded
from twofold.query.filters import Filter, Ranged, field_value

GROWTH = 16
"""The largest chunk, as a multiple of the first chunk. A chunk has twice as many keys as the chunk before it, so no
chunk takes much longer than its predecessors together."""
SEARCH_BATCH = 500
"""Events of one batch in a search for text. Other requests run between two batches."""
PAGE_BATCH = 100
"""Events of one batch on a page, where events may be large."""

IndexKey = tuple[Any, ...]
"""The values of an index's fields, in their order."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The matching documents of one chunk, and its last index key. `end` is None for the last chunk."""

    found: AsyncCursor[RawDocument]
    end: Document | None


async def chunks_by_time(
    collection: Collection, wanted: Filter, hint: str, field: str | None, first_keys: int
) -> AsyncGenerator[Chunk]:
    """Yield the chunks of `wanted` in the order of time, by the index `hint`: `field`, then time, then id.

    The first chunk has `first_keys` keys. If `wanted` compares no other field, every key matches, and one chunk is
    enough.
    """
    if not wanted.asks_more_than(field):
        yield Chunk(_limit(undecoded(collection).find(wanted.query(), hint=hint).sort(wanted.sort), wanted), None)
        return
    rest, keys = wanted, first_keys
    while True:
        ends = collection.find(rest.query_by(field), {"timestamp": 1}, hint=hint).sort(wanted.sort)
        end = await anext(ends.skip(keys - 1).limit(1), None)
        found = undecoded(collection).find(rest.query(end), hint=hint).sort(wanted.sort)
        yield Chunk(_limit(found, wanted), end)
        if end is None:
            return
        rest, keys = wanted.model_copy(update={"cursor": cursor_after(wanted, end)}), min(2 * keys, GROWTH * first_keys)


async def chunks_in_order(
    collection: Collection, wanted: Filter, hint: str, after: IndexKey | None, first_keys: int
) -> AsyncGenerator[Chunk]:
    """Yield the chunks of `wanted` in the order of the index `hint`, beginning after the key `after`."""
    query, names = Ranged.query(wanted), [name for name, _ in wanted.sort]
    forward, keys = wanted.sort[0][1] == 1, first_keys
    while True:
        not_again: Document = {} if after is None else {"_id": {"$ne": after[-1]}}  # `min` includes its bound
        end, until = None, None
        if query or wanted.text is not None:
            ends = _between(collection.find(not_again, dict.fromkeys(names, 1), hint=hint), wanted, after, None)
            last = [document async for document in ends.skip(keys - 1).limit(2)]
            if len(last) == 2:
                end = last[0]
                until = tuple(field_value(last[forward], name) for name in names)  # `max` excludes its bound
        found = _between(undecoded(collection).find(not_again | query, hint=hint), wanted, after, until)
        yield Chunk(_limit(found, wanted), end)
        if end is None:
            return
        after, keys = tuple(field_value(end, name) for name in names), min(2 * keys, GROWTH * first_keys)


def cursor_after(wanted: Filter, document: Document) -> str:
    """Return the cursor behind a document. Raise `Unreadable` if the document has no readable time or id."""
    return wanted.next_cursor(document) or raise_no_cursor()


def raise_no_cursor() -> Never:
    """Raise `Unreadable`: no event is left that a cursor could name."""
    raise Unreadable("the events at this place have no readable time or id: they were changed in the database")


def _limit(found: AsyncCursor[RawDocument], wanted: Filter) -> AsyncCursor[RawDocument]:
    """Read at most one event beyond the page. MongoDB can't match text, so a search for text has no such limit."""
    if wanted.text is not None:
        return found.batch_size(SEARCH_BATCH)
    return found.limit(wanted.limit + 1).batch_size(min(wanted.limit + 1, PAGE_BATCH))


def _between(
    found: AsyncCursor[Any], wanted: Filter, after: IndexKey | None, until: IndexKey | None
) -> AsyncCursor[Any]:
    names = [name for name, _ in wanted.sort]
    low, high = (after, until) if wanted.sort[0][1] == 1 else (until, after)
    found = found.sort(wanted.sort)
    if low is not None:
        found = found.min(list(zip(names, low, strict=True)))
    return found if high is None else found.max(list(zip(names, high, strict=True)))
