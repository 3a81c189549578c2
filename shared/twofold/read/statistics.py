"""Counts of the events in a range: in total, by type, by service, and by hour. Also the list of types."""

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
"""The length of a range with one bound or without bounds."""
LATEST = datetime.max.replace(tzinfo=UTC, microsecond=999_000)
MOST_NAMES = 1000
"""The largest number of types, or of services, with a count of their own."""


class EventsInHour(BaseModel):
    """The number of events in an hour."""

    hour: Annotated[datetime, Field(description="the beginning of the hour (UTC)")]
    events: int


class EventCounts(BaseModel):
    """The number of events in a range, by the times of their producers."""

    since: datetime
    until: datetime
    total: int
    by_type: Annotated[dict[str, int], Field(description=f"the {MOST_NAMES} most frequent types")]
    by_service: Annotated[dict[str, int], Field(description=f"the {MOST_NAMES} most frequent services")]
    by_hour: Annotated[list[EventsInHour], Field(description="in order; without the hours that have no events")]


class TypeNames(BaseModel):
    """The types of the stored events."""

    types: Annotated[list[str], Field(description="in alphabetical order")]
    more: Annotated[bool, Field(description=f"true: there are more than {MOST_NAMES} types")]


class EventStatistics:
    """Counts of one collection. Every method raises `Unavailable` when MongoDB is unavailable or too slow."""

    def __init__(self, collection: Collection, settings: QuerySettings) -> None:
        self._collection = collection
        self._timeout_s = settings.query_timeout_s
        self._longest = timedelta(days=settings.statistics_days)

    async def count(self, wanted: Ranged, visible_user: str | None = None) -> EventCounts:
        """Return the counts of `wanted`. The default range is the last 24 hours by the server's clock.

        `visible_user` is the only user whose events the caller may read, or None. Raises `Malformed` for a range that
        is longer than `statistics_days`.
        """
        since, until = await self._bounds(wanted)
        wanted = wanted.model_copy(update={"since": since, "until": until})
        if Conditions.query(wanted):
            hint = f"by_{index_for(self._collection.name, wanted, visible_user)}"
            (row,) = await self._rows(_counts_of_documents(wanted.query()), hint)
        else:
            row = await self._counts_of_range(wanted)
        return EventCounts(
            since=since,
            until=until,
            total=sum(hour["n"] for hour in row["hours"]),
            by_type={line["_id"]: line["n"] for line in row["types"]},
            by_service={line["_id"]: line["n"] for line in row["services"]},
            by_hour=[EventsInHour(hour=line["_id"], events=line["n"]) for line in row["hours"]],
        )

    async def _counts_of_range(self, wanted: Ranged) -> Document:
        """Count a range without other conditions: the indexes by type and by service are enough."""
        (row,) = await self._rows(_counts_of_keys(FIELDS["types"], wanted), "by_types")
        (services,) = await self._rows(_counts_of_keys(FIELDS["service"], wanted), "by_service")
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

    async def types(self, wanted: Conditions, visible_user: str | None = None) -> TypeNames:
        """Return the types of `wanted`, without conditions from the index by type alone."""
        query = wanted.query()
        name = index_for(self._collection.name, wanted, visible_user) if query else "types"
        rows = await self._rows(_all_types(query), f"by_{name}")
        return TypeNames(types=[row["_id"] for row in rows[:MOST_NAMES]], more=len(rows) > MOST_NAMES)

    async def _rows(self, pipeline: list[Any], hint: str) -> list[Document]:
        with driver_errors(NARROWER), time_limit(self._timeout_s):
            found = await self._collection.aggregate(pipeline, hint=hint)
            return [row async for row in found]


def _all_types(query: Document) -> list[Document]:
    """Return the pipeline of `types`. Without a query, MongoDB skips from type to type in the index by type."""
    first: Document = {"$match": query} if query else {"$sort": {"event_type": 1}}
    return [first, {"$group": {"_id": "$event_type"}}, {"$sort": {"_id": 1}}, {"$limit": MOST_NAMES + 1}]


_MOST_FIRST = {"n": -1, "_id": 1}
_HOUR = {"$dateTrunc": {"date": "$timestamp", "unit": "hour"}}


def _counts_of_documents(query: Document) -> list[Document]:
    """Return the pipeline that counts the documents of `query` by hour, type and service."""

    def counted(by: Any, order: Document, limit: int | None) -> list[Document]:
        stages: list[Document] = [{"$group": {"_id": by, "n": {"$sum": 1}}}, {"$sort": order}]
        return [*stages, {"$limit": limit}] if limit else stages

    return [
        {"$match": query},
        {"$project": {"_id": 0, "event_type": 1, "timestamp": 1, FIELDS["service"]: 1}},
        {
            "$facet": {
                "hours": counted(_HOUR, {"_id": 1}, None),
                "types": counted("$event_type", _MOST_FIRST, MOST_NAMES),
                "services": counted(f"${FIELDS['service']}", _MOST_FIRST, MOST_NAMES),
            }
        },
    ]


def _counts_of_keys(field: str, wanted: Ranged) -> list[Document]:
    """Return the pipeline that counts the keys of the index by `field` in a range: by hour, and by the field's values.

    MongoDB skips from the range of one value to the range of the next value, and reads no document.
    """

    def summed(by: str, order: Document) -> list[Document]:
        return [{"$group": {"_id": f"$_id.{by}", "n": {"$sum": "$n"}}}, {"$sort": order}]

    values = [*summed("value", _MOST_FIRST), {"$limit": MOST_NAMES}]
    return [
        {"$match": {field: {"$gt": ""}} | Ranged.query(wanted)},
        {"$group": {"_id": {"value": f"${field}", "hour": _HOUR}, "n": {"$sum": 1}}},
        {"$facet": {"hours": summed("hour", {"_id": 1}), "values": values}},
    ]
