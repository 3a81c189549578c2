"""Counts of events in a range: in all, by type, by service, by hour; and which types there are."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field

from twofold.errors import Malformed
from twofold.filters import FIELDS, Conditions, Ranged
from twofold.mongo import Collection, Document, driver_errors, server_time, within
from twofold.reading import index_for
from twofold.settings import Settings

DEFAULT = timedelta(hours=24)
LATEST = datetime.max.replace(tzinfo=UTC, microsecond=999_000)
MOST_NAMES = 1000
"""How many types, or services, are counted each by itself."""


class HourOf(BaseModel):
    """The events of one hour."""

    hour: Annotated[datetime, Field(description="when it begins (UTC)")]
    events: int


class Statistics(BaseModel):
    """How many events a range holds, by their own time."""

    since: datetime
    until: datetime
    total: int
    by_type: Annotated[dict[str, int], Field(description=f"the {MOST_NAMES} most frequent")]
    by_service: Annotated[dict[str, int], Field(description=f"the {MOST_NAMES} most frequent")]
    by_hour: Annotated[list[HourOf], Field(description="in order; an hour without events is left out")]


class Types(BaseModel):
    """The types of the events that are there."""

    types: Annotated[list[str], Field(description="in order of their names")]
    more: Annotated[bool, Field(description=f"there are more than these {MOST_NAMES}")]


class EventStatistics:
    """Counts of a collection that has `reading.filter_indexes(indexed)`. Every method raises `Unavailable`."""

    def __init__(self, collection: Collection, indexed: tuple[str, ...], settings: Settings) -> None:
        self._collection = collection
        self._indexed = frozenset(indexed)
        self._timeout_s = settings.query_timeout_s
        self._longest = timedelta(days=settings.statistics_days)

    async def count(self, wanted: Ranged) -> Statistics:
        """The statistics of what `wanted` selects; without bounds, of the 24 hours up to now by the server's clock.

        Raises `Malformed` for a range that is too long.
        """
        since, until = await self._bounds(wanted)
        wanted = wanted.model_copy(update={"since": since, "until": until})
        (row,) = await self._rows(_pipeline(wanted.query()), wanted)
        return Statistics(
            since=since,
            until=until,
            total=sum(hour["n"] for hour in row["hours"]),
            by_type={each["_id"]: each["n"] for each in row["types"]},
            by_service={each["_id"]: each["n"] for each in row["services"]},
            by_hour=[HourOf(hour=each["_id"], events=each["n"]) for each in row["hours"]],
        )

    async def _bounds(self, wanted: Ranged) -> tuple[datetime, datetime]:
        if wanted.since and not wanted.until:
            since, until = wanted.since, min(wanted.since, LATEST - DEFAULT) + DEFAULT
        else:
            until = wanted.until or await server_time(self._collection.database)
            since = wanted.since or until - DEFAULT
        if until - since > self._longest:
            raise Malformed(f"the range must be at most {self._longest.days:g} days", "from")
        return since, until

    async def types(self, wanted: Conditions) -> Types:
        """The types of what `wanted` selects: of everything, from the index alone."""
        query = wanted.query()
        rows = await self._rows(_all_types(query), wanted, None if query else "by_types")
        return Types(types=[row["_id"] for row in rows[:MOST_NAMES]], more=len(rows) > MOST_NAMES)

    async def _rows(self, pipeline: list[Any], wanted: Conditions, hint: str | None = None) -> list[Document]:
        with driver_errors(), within(self._timeout_s):
            found = await self._collection.aggregate(pipeline, hint=hint or index_for(wanted, self._indexed))
            return [row async for row in found]


def _all_types(query: Document) -> list[Document]:
    """Without a query, MongoDB skips from one type to the next in their index; with one, it reads what that leaves."""
    which: list[Document] = [{"$match": query}] if query else [{"$sort": {"event_type": 1}}]
    return [*which, {"$group": {"_id": "$event_type"}}, {"$sort": {"_id": 1}}, {"$limit": MOST_NAMES + 1}]


def _pipeline(query: Document) -> list[Document]:
    def counted(by: Any, order: Document, limit: int | None) -> list[Document]:
        stages: list[Document] = [{"$group": {"_id": by, "n": {"$sum": 1}}}, {"$sort": order}]
        return [*stages, {"$limit": limit}] if limit else stages

    often = {"n": -1, "_id": 1}
    hour = {"$dateTrunc": {"date": "$timestamp", "unit": "hour"}}
    return [
        {"$match": query},
        {"$project": {"_id": 0, "event_type": 1, "timestamp": 1, FIELDS["service"]: 1}},
        {
            "$facet": {
                "hours": counted(hour, {"_id": 1}, None),
                "types": counted("$event_type", often, MOST_NAMES),
                "services": counted(f"${FIELDS['service']}", often, MOST_NAMES),
            }
        },
    ]
