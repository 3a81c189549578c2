"""Counts of events in a range: in all, by type, by service, by hour; and which types there are."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field

from twofold.errors import Malformed
from twofold.mongo.client import Collection, Document, driver_errors, time_limit
from twofold.mongo.safe_time import server_time
from twofold.query.filters import FIELDS, Conditions, Ranged
from twofold.read.pages import NARROWER
from twofold.settings import QuerySettings
from twofold.storage.indexes import index_for

DEFAULT = timedelta(hours=24)


LATEST = datetime.max.replace(tzinfo=UTC, microsecond=999_000)


MOST_NAMES = 1000
"""How many types, or services, are counted each by itself."""


class EventsInHour(BaseModel):
    """The events of one hour."""

    hour: Annotated[datetime, Field(description="when it begins (UTC)")]
    events: int


class EventCounts(BaseModel):
    """How many events a range holds, by their own time."""

    since: datetime
    until: datetime
    total: int
    by_type: Annotated[dict[str, int], Field(description=f"the {MOST_NAMES} most frequent")]
    by_service: Annotated[dict[str, int], Field(description=f"the {MOST_NAMES} most frequent")]
    by_hour: Annotated[list[EventsInHour], Field(description="in order; an hour without events is left out")]


class TypeNames(BaseModel):
    """The types of the events that are there."""

    types: Annotated[list[str], Field(description="in order of their names")]
    more: Annotated[bool, Field(description=f"there are more than these {MOST_NAMES}")]


class EventStatistics:
    """Counts of a collection that has `reading.filter_indexes(indexed)`. Every method raises `Unavailable`."""

    def __init__(self, collection: Collection, settings: QuerySettings) -> None:
        self._collection = collection
        self._timeout_s = settings.query_timeout_s
        self._longest = timedelta(days=settings.statistics_days)

    async def count(self, wanted: Ranged, scope: str | None = None) -> EventCounts:
        """The statistics of what `wanted` selects; without bounds, of the 24 hours up to now by the server's clock.

        `scope` is the one user whose events the caller may read, if there is one. Raises `Malformed` for a range that
        is too long.
        """
        since, until = await self._bounds(wanted)
        wanted = wanted.model_copy(update={"since": since, "until": until})
        if Conditions.query(wanted):
            hint = f"by_{index_for(self._collection.name, wanted, scope)}"
            (row,) = await self._rows(_pipeline(wanted.query()), hint)
        else:
            row = await self._of_all(wanted)
        return EventCounts(
            since=since,
            until=until,
            total=sum(hour["n"] for hour in row["hours"]),
            by_type={each["_id"]: each["n"] for each in row["types"]},
            by_service={each["_id"]: each["n"] for each in row["services"]},
            by_hour=[EventsInHour(hour=each["_id"], events=each["n"]) for each in row["hours"]],
        )

    async def _of_all(self, wanted: Ranged) -> Document:
        """The counts of a range alone: in the indexes by type and by service, without a look at any event."""
        (row,) = await self._rows(_in_index(FIELDS["types"], wanted), "by_types")
        (services,) = await self._rows(_in_index(FIELDS["service"], wanted), "by_service")
        return {"hours": row["hours"], "types": row["values"], "services": services["values"]}

    async def _bounds(self, wanted: Ranged) -> tuple[datetime, datetime]:
        if wanted.since and not wanted.until:
            since, until = wanted.since, min(wanted.since, LATEST - DEFAULT) + DEFAULT
        else:
            until = wanted.until or await server_time(self._collection.database)
            since = wanted.since or until - DEFAULT
        if until - since > self._longest:
            raise Malformed(f"the range must be at most {self._longest.days:g} days", "from")
        return since, until

    async def types(self, wanted: Conditions, scope: str | None = None) -> TypeNames:
        """The types of what `wanted` selects: of everything, from the index alone. `scope` as in `count`."""
        query = wanted.query()
        name = index_for(self._collection.name, wanted, scope) if query else "types"
        rows = await self._rows(_all_types(query), f"by_{name}")
        return TypeNames(types=[row["_id"] for row in rows[:MOST_NAMES]], more=len(rows) > MOST_NAMES)

    async def _rows(self, pipeline: list[Any], hint: str) -> list[Document]:
        with driver_errors(NARROWER), time_limit(self._timeout_s):
            found = await self._collection.aggregate(pipeline, hint=hint)
            return [row async for row in found]


def _all_types(query: Document) -> list[Document]:
    """Without a query, MongoDB skips from one type to the next in their index; with one, it reads what that leaves."""
    which: list[Document] = [{"$match": query}] if query else [{"$sort": {"event_type": 1}}]
    return [*which, {"$group": {"_id": "$event_type"}}, {"$sort": {"_id": 1}}, {"$limit": MOST_NAMES + 1}]


_OFTEN = {"n": -1, "_id": 1}


_HOUR = {"$dateTrunc": {"date": "$timestamp", "unit": "hour"}}


def _pipeline(query: Document) -> list[Document]:
    """Counts of what `query` selects, event by event."""

    def counted(by: Any, order: Document, limit: int | None) -> list[Document]:
        stages: list[Document] = [{"$group": {"_id": by, "n": {"$sum": 1}}}, {"$sort": order}]
        return [*stages, {"$limit": limit}] if limit else stages

    return [
        {"$match": query},
        {"$project": {"_id": 0, "event_type": 1, "timestamp": 1, FIELDS["service"]: 1}},
        {
            "$facet": {
                "hours": counted(_HOUR, {"_id": 1}, None),
                "types": counted("$event_type", _OFTEN, MOST_NAMES),
                "services": counted(f"${FIELDS['service']}", _OFTEN, MOST_NAMES),
            }
        },
    ]


def _in_index(field: str, wanted: Ranged) -> list[Document]:
    """Counts in a range by hour and by the values of `field`, in its index: from one value's range to the next's."""

    def summed(by: str, order: Document) -> list[Document]:
        return [{"$group": {"_id": f"$_id.{by}", "n": {"$sum": "$n"}}}, {"$sort": order}]

    return [
        {"$match": {field: {"$gt": ""}} | Ranged.query(wanted)},
        {"$group": {"_id": {"value": f"${field}", "hour": _HOUR}, "n": {"$sum": 1}}},
        {"$facet": {"hours": summed("hour", {"_id": 1}), "values": [*summed("value", _OFTEN), {"$limit": MOST_NAMES}]}},
    ]
