"""Counts for admins in `events`: the last hours of all users, and the last hours of one user.

Every count is a scan of one index. The range of hours bounds the scan, or the user's own events in the range do.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field

from twofold.mongo.client import Database, Document, driver_errors, time_limit
from twofold.mongo.safe_time import server_time
from twofold.query.filters import FIELDS, Filter
from twofold.read.models import EventOut
from twofold.read.pages import EventReader
from twofold.settings import AdminSettings

TOP = 10
"""The number of types, and of users, in a list of the most frequent."""
RECENT = 20
"""The number of events in the overview of a user."""
HOUR = timedelta(hours=1)

Key = TypeVar("Key")


class TypeCount(BaseModel):
    """The number of events of one type."""

    event_type: str
    count: int


class HourCount(BaseModel):
    """The number of events in one hour (UTC)."""

    hour: Annotated[datetime, Field(description="the beginning of the hour")]
    count: int
    errors: int


class UserCount(BaseModel):
    """The number of events of one user."""

    user_id: str
    count: int


class ProcessingTime(BaseModel):
    """The time from the first event of an aggregate to its finishing event."""

    mean_ms: Annotated[float | None, Field(description="null: no aggregate finished")]
    aggregates: Annotated[int, Field(description="the number of aggregates in the mean")]
    sampled: Annotated[bool, Field(description="true: more aggregates finished; the mean is of the latest")]
    rule: Annotated[str, Field(description="the definition of the measured time")]


class RecentStatistics(BaseModel):
    """Figures of `events` in the last hours, by the times of the producers."""

    since: datetime
    until: datetime
    total: int
    errors: int
    error_rate: Annotated[float, Field(description="errors divided by total; 0 without events")]
    error_rule: Annotated[str, Field(description="the definition of an error")]
    top_types: list[TypeCount]
    hourly: Annotated[
        list[HourCount], Field(description="every hour, oldest first; the first and the last hour are incomplete")
    ]
    active_users: int
    top_users: list[UserCount]
    processing: ProcessingTime


class UserOverview(BaseModel):
    """The events of one user in the last hours."""

    user_id: str
    since: datetime
    until: datetime
    total: int
    errors: int
    first: datetime | None
    last: datetime | None
    types: Annotated[list[TypeCount], Field(description="the most frequent types")]
    aggregates: Annotated[int, Field(description="the number of different aggregates")]
    recent: Annotated[list[EventOut], Field(description="the newest events, newest first")]


class AdminStatistics:
    """Counts in `events`. Every method raises `Unavailable` when MongoDB is unavailable or too slow."""

    def __init__(self, database: Database, settings: AdminSettings) -> None:
        self._database = database
        self._events = database["events"]
        self._reader = EventReader(database["events"], settings)
        self._timeout_s = settings.statistics_timeout_s
        self._error_words = frozenset(settings.error_words)
        self._finishing_words = frozenset(settings.finishing_words)
        self._sample = settings.statistics_sample

    async def last_hours(self, hours: int) -> RecentStatistics:
        """Return the figures of the last `hours` hours, by the server's clock."""
        until = await server_time(self._database)
        since = until - hours * HOUR
        with driver_errors(), time_limit(self._timeout_s):
            counts = await self._by_type_and_hour(since, until)
            active, top_users = await self._users(since, until)
            types = _summed((event_type, count) for (event_type, _), count in counts.items())
            processing = await self._processing(since, until, list(types))
        total, errors = types.total(), self._errors(types)
        return RecentStatistics(
            since=since,
            until=until,
            total=total,
            errors=errors,
            error_rate=errors / total if total else 0.0,
            error_rule=f"the last word of the type is one of: {', '.join(sorted(self._error_words))}",
            top_types=_top(types),
            hourly=self._hourly(counts, since, until),
            active_users=active,
            top_users=top_users,
            processing=processing,
        )

    async def user(self, user_id: str, hours: int) -> UserOverview:
        """Return the overview of one user for the last `hours` hours, by the server's clock."""
        until = await server_time(self._database)
        since = until - hours * HOUR
        match = {"$match": {FIELDS["user"]: user_id, "timestamp": {"$gte": since, "$lt": until}}}
        with driver_errors(), time_limit(self._timeout_s):
            lines = await self._rows([match, *_BY_TYPE], "by_user")
            aggregates = await self._rows([match, *_DISTINCT_AGGREGATES], "by_user")
        recent = await self._reader.page(Filter(user=user_id, since=since, until=until, limit=RECENT))
        types = Counter({str(line["_id"]): int(line["count"]) for line in lines})
        return UserOverview(
            user_id=user_id,
            since=since,
            until=until,
            total=types.total(),
            errors=self._errors(types),
            first=min((line["first"] for line in lines), default=None),
            last=max((line["last"] for line in lines), default=None),
            types=_top(types),
            aggregates=aggregates[0]["n"] if aggregates else 0,
            recent=recent.events,
        )

    def _is_error(self, event_type: str) -> bool:
        return event_type.rpartition(".")[2] in self._error_words

    def _errors(self, types: Counter[str]) -> int:
        return sum(count for event_type, count in types.items() if self._is_error(event_type))

    async def _by_type_and_hour(self, since: datetime, until: datetime) -> Counter[tuple[str, datetime]]:
        """Count in the index by type alone. MongoDB skips from the range of one type to the range of the next type."""
        match = {"event_type": {"$gt": ""}, "timestamp": {"$gte": since, "$lt": until}}
        hour = {"$dateTrunc": {"date": "$timestamp", "unit": "hour"}}
        group = {"_id": {"event_type": "$event_type", "hour": hour}, "count": {"$sum": 1}}
        rows = await self._rows([{"$match": match}, {"$group": group}], "by_types")
        return Counter({(row["_id"]["event_type"], row["_id"]["hour"]): row["count"] for row in rows})

    async def _users(self, since: datetime, until: datetime) -> tuple[int, list[UserCount]]:
        """Return the number of active users, and the users with the most events."""
        match = {"timestamp": {"$gte": since, "$lt": until}, FIELDS["user"]: {"$gt": ""}}
        top = [{"$sort": {"count": -1, "_id": 1}}, {"$limit": TOP}]
        pipeline: list[Document] = [
            {"$match": match},
            {"$group": {"_id": f"${FIELDS['user']}", "count": {"$sum": 1}}},
            {"$facet": {"top": top, "all": [{"$count": "n"}]}},
        ]
        (found,) = await self._rows(pipeline, "by_time")
        users = [UserCount(user_id=row["_id"], count=row["count"]) for row in found["top"]]
        return (found["all"][0]["n"] if found["all"] else 0), users

    async def _processing(self, since: datetime, until: datetime, types: Sequence[str]) -> ProcessingTime:
        finishing = [name for name in types if name.rpartition(".")[2] in self._finishing_words]
        rule = (
            "from the first event of an aggregate in `events` to its first finishing event in these hours: the last "
            f"word of its type is one of {', '.join(sorted(self._finishing_words))}; of the latest {self._sample} "
            "finishing events"
        )
        pipeline = _processing_pipeline(since, until, finishing, self._sample)
        rows = await self._rows(pipeline, "by_types") if finishing else []
        found: Document = rows[0] if rows else {"mean": None, "aggregates": 0, "looked_at": 0}
        return ProcessingTime(
            mean_ms=found["mean"],
            aggregates=found["aggregates"],
            sampled=found["looked_at"] >= self._sample,
            rule=rule,
        )

    def _hourly(self, counts: Counter[tuple[str, datetime]], since: datetime, until: datetime) -> list[HourCount]:
        totals = _summed((hour, count) for (_, hour), count in counts.items())
        errors = _summed((hour, count) for (name, hour), count in counts.items() if self._is_error(name))
        first = since.replace(minute=0, second=0, microsecond=0)
        hours = [first + number * HOUR for number in range(-((first - until) // HOUR))]
        return [HourCount(hour=hour, count=totals[hour], errors=errors[hour]) for hour in hours]

    async def _rows(self, pipeline: Sequence[Document], hint: str) -> list[Document]:
        found = await self._events.aggregate(pipeline, hint=hint)
        return [row async for row in found]


_BY_TYPE: list[Document] = [
    {
        "$group": {
            "_id": "$event_type",
            "count": {"$sum": 1},
            "first": {"$min": "$timestamp"},
            "last": {"$max": "$timestamp"},
        }
    }
]
_DISTINCT_AGGREGATES: list[Document] = [
    {"$match": {"aggregate_id": {"$ne": None}}},
    {"$group": {"_id": "$aggregate_id"}},
    {"$count": "n"},
]


def _processing_pipeline(since: datetime, until: datetime, finishing: Sequence[str], sample: int) -> list[Document]:
    """Return the pipeline of the mean time. An aggregate whose first event finishes it has no processing time."""
    finished = {
        "event_type": {"$in": list(finishing)},
        "timestamp": {"$gte": since, "$lt": until},
        "aggregate_id": {"$gt": ""},
    }
    first: list[Document] = [{"$sort": {"timestamp": 1, "order": 1}}, {"$limit": 1}, {"$project": {"timestamp": 1}}]
    lookup = {"from": "events", "localField": "_id", "foreignField": "aggregate_id", "pipeline": first, "as": "first"}
    end = {"$min": {"at": "$timestamp", "order": "$order", "id": "$_id"}}
    took = {"$subtract": ["$end.at", "$first.timestamp"]}
    has_earlier = {"$ne": ["$end.id", "$first._id"]}
    mean = {
        "_id": None,
        "mean": {"$avg": {"$cond": [has_earlier, took, None]}},
        "aggregates": {"$sum": {"$cond": [has_earlier, 1, 0]}},
        "looked_at": {"$sum": "$events"},
    }
    return [
        {"$match": finished},
        {"$sort": {"timestamp": -1, "order": -1}},
        {"$limit": sample},
        {"$group": {"_id": "$aggregate_id", "end": end, "events": {"$sum": 1}}},
        {"$lookup": lookup},
        {"$set": {"first": {"$first": "$first"}}},
        {"$group": mean},
    ]


def _summed(pairs: Iterable[tuple[Key, int]]) -> Counter[Key]:
    """Return the sum of the counts of every key."""
    summed: Counter[Key] = Counter()
    for key, count in pairs:
        summed[key] += count
    return summed


def _top(types: Counter[str]) -> list[TypeCount]:
    most_first = sorted(types.items(), key=lambda item: (-item[1], item[0]))
    return [TypeCount(event_type=name, count=count) for name, count in most_first[:TOP]]
