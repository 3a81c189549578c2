"""A summary of `event_store`: its health, and the number of events of each type."""

import time
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import PyMongoError

from twofold.mongo.client import Database, driver_errors, time_limit
from twofold.query.filters import Range, Selection


class TypeLine(BaseModel):
    """The events of one type in the log."""

    event_type: str
    count: Annotated[int | None, Field(description="null: too many to count in time; ask for a range")]
    first: Annotated[datetime, Field(description="the earliest time")]
    last: Annotated[datetime, Field(description="the latest time")]


class TypePage(BaseModel):
    """A page of event types, in the order of their names."""

    types: list[TypeLine]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last page")] = None


class LogHealth(BaseModel):
    """The state of the log."""

    status: Literal["ok"]
    events: Annotated[int, Field(description="the server's estimate of the number of events")]
    first: Annotated[
        datetime | None, Field(description="when the first event came into the log, by the server's clock")
    ]
    last: Annotated[datetime | None, Field(description="when the last event came into the log, by the server's clock")]


class LogSummary:
    """Figures of the log. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database) -> None:
        self._event_store = database["event_store"]

    async def health(self) -> LogHealth:
        """Return the number of events, and the times of the first and the last insert."""
        ends = []
        with driver_errors():
            events = await self._event_store.estimated_document_count()
            for direction in (ASCENDING, DESCENDING):
                found = self._event_store.find({}, {"seq": 1, "_id": 0}, hint="feed").sort("seq", direction).limit(1)
                ends.append(next(iter([end["seq"].as_datetime() async for end in found]), None))
        return LogHealth(status="ok", events=events, first=ends[0], last=ends[1])

    async def types(self, within: Range, after: str | None, limit: int, seconds: float) -> TypePage:
        """Return up to `limit` types of a range, in the order of their names, after the name `after`.

        The query walks the index by type: from type to type, and to the first and last event of each. The count reads
        every index key of the type in the range. A type that can't be counted in `seconds` has the count None.
        """
        until = time.monotonic() + seconds
        page, first = TypePage(types=[]), after or ""
        last = first
        with driver_errors():
            while len(page.types) < limit and (event_type := await self._next_type(last)) is not None:
                if time.monotonic() > until and last != first:  # a page advances by at least a type
                    page.next = last
                    return page
                last = event_type
                if (line := await self._line(event_type, within, until)) is not None:
                    page.types.append(line)
            if len(page.types) == limit and await self._next_type(last) is not None:
                page.next = last
        return page

    async def _next_type(self, after: str) -> str | None:
        later = self._event_store.find({"event_type": {"$gt": after}}, {"event_type": 1, "_id": 0}, hint="by_types")
        async for document in later.sort("event_type", ASCENDING).limit(1):
            return str(document["event_type"])
        return None

    async def _line(self, event_type: str, within: Range, until: float) -> TypeLine | None:
        query = Selection(types=(event_type,), since=within.since, until=within.until).query()
        ends = []
        for direction in (ASCENDING, DESCENDING):
            found = self._event_store.find(query, {"timestamp": 1, "_id": 0}, hint="by_types")
            ends += [end["timestamp"] async for end in found.sort("timestamp", direction).limit(1)]
        if not ends:
            return None
        try:
            with time_limit(max(until - time.monotonic(), 0.001)):
                count = await self._event_store.count_documents(query, hint="by_types")
        except PyMongoError as error:
            if not error.timeout:
                raise
            return TypeLine(event_type=event_type, count=None, first=ends[0], last=ends[-1])
        return TypeLine(event_type=event_type, count=count, first=ends[0], last=ends[-1])
