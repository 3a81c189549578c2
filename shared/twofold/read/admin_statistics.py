"""What admins count in `events`: the last hours at a glance, and one user's.

Each number comes from a scan of an index that is bounded by the hours, or by the user's own events in them.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field

from twofold.mongo.client import Database, Document, driver_errors, time_limit
from twofold.mongo.safe_time import server_time
from twofold.query.filters import FIELDS, Filter
from twofold.read.models import EventOut
from twofold.read.pages import EventReader
from twofold.settings import AdminSettings

TOP = 10


RECENT = 20


HOUR = timedelta(hours=1)


class TypeCount(BaseModel):
    """Events of one type."""

    event_type: str
    count: int


class HourCount(BaseModel):
    """Events of one hour (UTC)."""

    hour: Annotated[datetime, Field(description="its beginning")]
    count: int
    errors: int


class UserCount(BaseModel):
    """Events of one user."""

    user_id: str
    count: int


class ProcessingTime(BaseModel):
    """How long aggregates took."""

    mean_ms: Annotated[float | None, Field(description="null: none finished")]
    aggregates: Annotated[int, Field(description="how many the mean is of")]
    sampled: Annotated[bool, Field(description="true: more finished than were looked at; these are the latest")]
    rule: Annotated[str, Field(description="what was measured")]


class RecentStatistics(BaseModel):
    """`events` in the last hours, by the producers' times."""

    since: datetime
    until: datetime
    total: int
    errors: int
    error_rate: Annotated[float, Field(description="errors by total; 0 without events")]
    error_rule: Annotated[str, Field(description="which events count as errors")]
    top_types: list[TypeCount]
    hourly: Annotated[list[HourCount], Field(description="every hour, the oldest first; the first and last are parts")]
    active_users: int
    top_users: list[UserCount]
    processing: ProcessingTime


class UserOverview(BaseModel):
    """One user's events in the last hours."""

    user_id: str
    since: datetime
    until: datetime
    total: int
    errors: int
    first: datetime | None
    last: datetime | None
    types: Annotated[list[TypeCount], Field(description="the most frequent")]
    aggregates: Annotated[int, Field(description="how many different ones")]
    recent: Annotated[list[EventOut], Field(description="the newest events, the newest first")]


class AdminStatistics:
    """Counts in `events`. Every method raises `Unavailable`, also when there is too much for the time that it has."""

    def __init__(self, database: Database, settings: AdminSettings) -> None:
        self._database = database
        self._events = database["events"]
        self._reader = EventReader(database["events"], settings)
        self._timeout_s = settings.statistics_timeout_s
        self._error_words = frozenset(settings.error_words)
        self._finishing_words = frozenset(settings.finishing_words)
        self._sample = settings.statistics_sample

    async def last_hours(self, hours: int) -> RecentStatistics:
        """The statistics of that many hours, up to now by the server's clock."""
        until = await server_time(self._database)
        since = until - hours * HOUR
        with driver_errors(), time_limit(self._timeout_s):
            counts = await self._by_type_and_hour(since, until)
            active, top_users = await self._users(since, until)
            types = _summed(counts, "event_type")
            processing = await self._processing(since, until, list(types))
        total, errors = types.total(), sum(n for name, n in types.items() if self._is_error(name))
        return RecentStatistics(
            since=since,
            until=until,
            total=total,
            errors=errors,
            error_rate=errors / total if total else 0.0,
            error_rule=f"the last word of the type is one of: {', '.join(sorted(self._error_words))}",
            top_types=[TypeCount(event_type=name, count=count) for name, count in _top(types)],
            hourly=self._hourly(counts, since, until),
            active_users=active,
            top_users=top_users,
            processing=processing,
        )

    async def user(self, user_id: str, hours: int) -> UserOverview:
        """The overview of one user, up to now by the server's clock."""
        until = await server_time(self._database)
        since = until - hours * HOUR
        theirs = {FIELDS["user"]: user_id, "timestamp": {"$gte": since, "$lt": until}}
        by_type: Document = {
            "_id": "$event_type",
            "count": {"$sum": 1},
            "first": {"$min": "$timestamp"},
            "last": {"$max": "$timestamp"},
        }
        distinct: list[Document] = [
            {"$match": {"aggregate_id": {"$ne": None}}},
            {"$group": {"_id": "$aggregate_id"}},
            {"$count": "n"},
        ]
        with driver_errors(), time_limit(self._timeout_s):
            lines = await self._rows([{"$match": theirs}, {"$group": by_type}], "by_user")
            aggregates = await self._rows([{"$match": theirs}, *distinct], "by_user")
        recent = await self._reader.page(Filter(user=user_id, since=since, until=until, limit=RECENT))
        types = Counter({str(line["_id"]): int(line["count"]) for line in lines})
        return UserOverview(
            user_id=user_id,
            since=since,
            until=until,
            total=types.total(),
            errors=sum(count for name, count in types.items() if self._is_error(name)),
            first=min((line["first"] for line in lines), default=None),
            last=max((line["last"] for line in lines), default=None),
            types=[TypeCount(event_type=name, count=count) for name, count in _top(types)],
            aggregates=aggregates[0]["n"] if aggregates else 0,
            recent=recent.events,
        )

    def _is_error(self, event_type: str) -> bool:
        return event_type.rpartition(".")[2] in self._error_words

    async def _by_type_and_hour(self, since: datetime, until: datetime) -> Counter[tuple[str, datetime]]:
        """Counted in the index by type alone, which skips from each type's hours to the next type's."""
        there = {"event_type": {"$gt": ""}, "timestamp": {"$gte": since, "$lt": until}}
        hour = {"$dateTrunc": {"date": "$timestamp", "unit": "hour"}}
        group = {"_id": {"event_type": "$event_type", "hour": hour}, "count": {"$sum": 1}}
        rows = await self._rows([{"$match": there}, {"$group": group}], "by_types")
        return Counter({(row["_id"]["event_type"], row["_id"]["hour"]): row["count"] for row in rows})

    async def _users(self, since: datetime, until: datetime) -> tuple[int, list[UserCount]]:
        """How many users there are, and the busiest."""
        there = {"timestamp": {"$gte": since, "$lt": until}, FIELDS["user"]: {"$gt": ""}}
        top = [{"$sort": {"count": -1, "_id": 1}}, {"$limit": TOP}]
        pipeline: list[Document] = [
            {"$match": there},
            {"$group": {"_id": f"${FIELDS['user']}", "count": {"$sum": 1}}},
            {"$facet": {"top": top, "all": [{"$count": "n"}]}},
        ]
        (found,) = await self._rows(pipeline, "by_time")
        users = [UserCount(user_id=row["_id"], count=row["count"]) for row in found["top"]]
        return (found["all"][0]["n"] if found["all"] else 0), users

    async def _processing(self, since: datetime, until: datetime, types: Sequence[str]) -> ProcessingTime:
        finishing = [name for name in types if name.rpartition(".")[2] in self._finishing_words]
        rule = (
            "from the first event of an aggregate in `events` to its first finishing event in these hours: one whose "
            f"type's last word is one of {', '.join(sorted(self._finishing_words))}; of the latest {self._sample} such"
        )
        rows = await self._rows(self._processing_pipeline(since, until, finishing), "by_types") if finishing else []
        found: Document = rows[0] if rows else {"mean": None, "aggregates": 0, "looked_at": 0}
        return ProcessingTime(
            mean_ms=found["mean"],
            aggregates=found["aggregates"],
            sampled=found["looked_at"] >= self._sample,
            rule=rule,
        )

    def _processing_pipeline(self, since: datetime, until: datetime, finishing: Sequence[str]) -> list[Document]:
        finished = {
            "event_type": {"$in": list(finishing)},
            "timestamp": {"$gte": since, "$lt": until},
            "aggregate_id": {"$gt": ""},
        }
        first: list[Document] = [{"$sort": {"timestamp": 1, "_id": 1}}, {"$limit": 1}, {"$project": {"timestamp": 1}}]
        lookup = {
            "from": "events",
            "localField": "_id",
            "foreignField": "aggregate_id",
            "pipeline": first,
            "as": "first",
        }
        end = {"$min": {"at": "$timestamp", "id": "$_id"}}
        took = {"$subtract": ["$end.at", "$first.timestamp"]}
        is_another = {"$ne": ["$end.id", "$first._id"]}
        return [
            {"$match": finished},
            {"$sort": {"timestamp": -1, "_id": -1}},
            {"$limit": self._sample},
            {"$group": {"_id": "$aggregate_id", "end": end, "events": {"$sum": 1}}},
            {"$lookup": lookup},
            {"$set": {"first": {"$first": "$first"}}},
            {
                "$group": {
                    "_id": None,
                    "mean": {"$avg": {"$cond": [is_another, took, None]}},
                    "aggregates": {"$sum": {"$cond": [is_another, 1, 0]}},
                    "looked_at": {"$sum": "$events"},
                }
            },
        ]

    def _hourly(self, counts: Counter[tuple[str, datetime]], since: datetime, until: datetime) -> list[HourCount]:
        totals = _summed(counts, "hour")
        errors = _summed(Counter({key: n for key, n in counts.items() if self._is_error(key[0])}), "hour")
        hour = since.replace(minute=0, second=0, microsecond=0)
        hours = []
        while hour < until:
            hours.append(HourCount(hour=hour, count=totals[hour], errors=errors[hour]))
            hour += HOUR
        return hours

    async def _rows(self, pipeline: list[Document], hint: str) -> list[Document]:
        found = await self._events.aggregate(pipeline, hint=hint)
        return [row async for row in found]


def _summed(counts: Counter[tuple[str, datetime]], by: str) -> Counter[Any]:
    """The counts by the type, or by the hour, alone."""
    summed: Counter[Any] = Counter()
    for (event_type, hour), count in counts.items():
        summed[event_type if by == "event_type" else hour] += count
    return summed


def _top(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
