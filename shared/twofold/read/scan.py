"""Scans of an index, piece by piece: each ends, however few of the events in it are wanted.

A piece is a number of the index's keys in their order. The server finds by them where it ends, and then looks at the
events up to there. So whoever asks can stop between two pieces, and knows from where to go on.
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
"""How many times as large as the first a piece becomes, at most: each has twice as many keys as the one before, so that
none takes much longer than all before it together."""


SEARCH_BATCH = 500
"""How many events a search for text looks into before others have their turn."""


PAGE_BATCH = 100
"""How many events come at once, where they may be large."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is wanted in a piece, and the fields of its last key; none: behind it there is nothing."""

    found: AsyncCursor[RawDocument]
    end: Document | None


async def chunks_by_time(
    collection: Collection, wanted: Filter, hint: str, field: str | None, first_keys: int
) -> AsyncGenerator[Chunk]:
    """The pieces of what `wanted` selects, by the index `hint`, which has `field` and then the order of time.

    One piece is all where that is all that is asked.
    """
    if not wanted.asks_more_than(field):
        yield Chunk(_bounded(undecoded(collection).find(wanted.query(), hint=hint).sort(wanted.sort), wanted), None)
        return
    here, keys = wanted, first_keys
    while True:
        ends = collection.find(here.query_by(field), {"timestamp": 1}, hint=hint).sort(wanted.sort)
        end = await anext(ends.skip(keys - 1).limit(1), None)
        found = undecoded(collection).find(here.query(end), hint=hint).sort(wanted.sort)
        yield Chunk(_bounded(found, wanted), end)
        if end is None:
            return
        here, keys = wanted.model_copy(update={"cursor": cursor_after(wanted, end)}), min(2 * keys, GROWTH * first_keys)


async def chunks_in_order(
    collection: Collection, wanted: Filter, hint: str, place: tuple[Any, ...] | None, first_keys: int
) -> AsyncGenerator[Chunk]:
    """The pieces of what `wanted` selects, in the order of all fields of the index `hint`, behind its key `place`."""
    query, names = Ranged.query(wanted), [name for name, _ in wanted.sort]
    forward, keys = wanted.sort[0][1] == 1, first_keys
    while True:
        behind: Document = {} if place is None else {"_id": {"$ne": place[-1]}}  # `min` includes its bound
        end, until = None, None
        if query or wanted.text is not None:
            ends = _between(collection.find(behind, dict.fromkeys(names, 1), hint=hint), wanted, place, None)
            last = [document async for document in ends.skip(keys - 1).limit(2)]
            if len(last) == 2:
                end = last[0]
                until = tuple(field_value(last[forward], name) for name in names)  # `max` doesn't include its bound
        found = _between(undecoded(collection).find(behind | query, hint=hint), wanted, place, until)
        yield Chunk(_bounded(found, wanted), end)
        if end is None:
            return
        place, keys = tuple(field_value(end, name) for name in names), min(2 * keys, GROWTH * first_keys)


def cursor_after(wanted: Filter, document: Document) -> str:
    """The cursor behind a document. Raises `Unreadable` if it has no place."""
    return wanted.behind(document) or raise_no_cursor()


def raise_no_cursor() -> Never:
    """Raise `Unreadable`: there is no event next to which one could go on."""
    raise Unreadable("the times or ids of events were made unreadable in the database")


def _bounded(found: AsyncCursor[RawDocument], wanted: Filter) -> AsyncCursor[RawDocument]:
    """No more than one event beyond the page, unless MongoDB can't know which belong to it."""
    if wanted.text is not None:
        return found.batch_size(SEARCH_BATCH)
    return found.limit(wanted.limit + 1).batch_size(min(wanted.limit + 1, PAGE_BATCH))


def _between(
    found: AsyncCursor[Any], wanted: Filter, behind: tuple[Any, ...] | None, until: tuple[Any, ...] | None
) -> AsyncCursor[Any]:
    names = [name for name, _ in wanted.sort]
    low, high = (behind, until) if wanted.sort[0][1] == 1 else (until, behind)
    found = found.sort(wanted.sort)
    if low is not None:
        found = found.min(list(zip(names, low, strict=True)))
    return found if high is None else found.max(list(zip(names, high, strict=True)))
