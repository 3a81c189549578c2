"""What `audit` answers: history, security events, statistics and the feed of `event_store`. It can only read."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twofold.errors import Malformed, NotFound
from twofold.query.filters import Filter, Order, Range
from twofold.query.limits import MAX_LIMIT
from twofold.query.parameters import AttributeValue, EventId, QueryTime, WholeNumber
from twofold.read.feed import MAX_WAIT_S, Feed, FeedCursor, FeedPage
from twofold.read.log_summary import LogHealth, LogSummary, TypePage
from twofold.read.models import EventOut, EventPage
from twofold.read.pages import EventReader
from twofold.settings import AuditSettings
from twofold.web.api import Call, Example, Operation
from twofold.web.permissions import Permission


@dataclass(frozen=True)
class Audit:
    """The parts that the operations use."""

    summary: LogSummary
    reader: EventReader
    feed: Feed
    settings: AuditSettings


class OneEvent(BaseModel):
    """Which event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: EventId


class LogFilter(Filter):
    """A page of the log. It has no index by service: each costs every insert for ever."""

    service: ClassVar[None] = None  # type: ignore[misc]  # the parameter is taken away, not changed


class SecurityEvents(Range):
    """A page of the security events."""

    user: Annotated[AttributeValue | None, Field(description="of this user")] = None
    order: Annotated[Order, Field(description="by time, and by id where the time is equal")] = "newest"
    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_LIMIT, description="how many events at most")] = 100
    cursor: Annotated[
        AttributeValue | None, Field(description="`next` of the page before, with the same parameters")
    ] = None


class TypesOf(Range):
    """A page of the types."""

    after: Annotated[AttributeValue | None, Field(description="`next` of the page before")] = None
    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_LIMIT, description="how many types at most")] = 100


class FeedFrom(BaseModel):
    """From where on to read the feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: Annotated[
        AttributeValue | None, Field(description="that of the answer before; without it, from the start")
    ] = None
    since: Annotated[
        QueryTime | None, Field(description="from what came into the log at this time on, in place of a cursor")
    ] = None
    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_LIMIT, description="how many events at most")] = 100
    wait_s: Annotated[
        WholeNumber, Field(ge=0, le=MAX_WAIT_S, description="how many seconds to wait if there is nothing yet")
    ] = 0

    @model_validator(mode="after")
    def _begins_at_one_place(self) -> Self:
        if self.cursor is not None and self.since is not None:
            raise Malformed("there is a cursor: it says where to go on", "since")
        return self

    @property
    def place(self) -> FeedCursor:
        """Where to begin. Raises `Malformed` for a cursor that is none."""
        if self.cursor is not None:
            return FeedCursor.of_cursor(self.cursor)
        return FeedCursor.start() if self.since is None else FeedCursor.at(self.since)


async def page(call: Call[Audit]) -> EventPage:
    """Some events of the log."""
    return await call.service.reader.page(call.parameters)


async def one(call: Call[Audit]) -> EventOut:
    """One event."""
    event = await call.service.reader.get(call.parameters.event_id)
    if event is None:
        raise NotFound("the log has no such event", "event_id")
    return event


async def security(call: Call[Audit]) -> EventPage:
    """Some security events."""
    asked = call.parameters.model_dump()
    return await call.service.reader.page(Filter(types=call.service.settings.security_types, **asked))


async def types(call: Call[Audit]) -> TypePage:
    """What there is of each type."""
    asked: TypesOf = call.parameters
    return await call.service.summary.types(asked, asked.after, asked.limit, call.service.settings.query_timeout_s)


async def feed(call: Call[Audit]) -> FeedPage:
    """What comes next."""
    asked: FeedFrom = call.parameters
    longest = timedelta(seconds=asked.wait_s)
    stretch = await call.service.feed.wait(asked.place, asked.limit, call.service.settings.page_bytes, longest)
    return FeedPage.of(stretch)


async def health(call: Call[Audit]) -> LogHealth:
    """How the log is."""
    return await call.service.summary.health()


OPERATIONS: tuple[Operation[Audit], ...] = (
    Operation(
        name="listLog",
        method="GET",
        path="/events",
        summary="The history of an aggregate, a correlation, a user, a type or a time, or of any combination.",
        details=(
            "A page's `next` is the `cursor` of the following one. The order is that of time, and of ids where it is "
            "equal: `order=oldest` tells it as it happened. A search for `text` may be `cut`: `next` goes on then."
        ),
        examples=(Example("/events?aggregate=order-7&order=oldest"),),
        handle=page,
        parameters=LogFilter,
        answer=EventPage,
        permission=Permission.AUDIT,
    ),
    Operation(
        name="getLogEvent",
        method="GET",
        path="/events/{event_id}",
        summary="One event of the log.",
        examples=(Example("/events/$EVENT_ID"),),
        handle=one,
        parameters=OneEvent,
        answer=EventOut,
        permission=Permission.AUDIT,
        refusals=(NotFound,),
    ),
    Operation(
        name="listSecurityEvents",
        method="GET",
        path="/security",
        summary="Security events: those of the types that the setting SECURITY_TYPES names.",
        examples=(Example("/security?limit=20"),),
        handle=security,
        parameters=SecurityEvents,
        answer=EventPage,
        permission=Permission.AUDIT,
    ),
    Operation(
        name="listLogTypes",
        method="GET",
        path="/types",
        summary="Of each type in the log: how many events, the first and the last.",
        details="In the order of their names, page by page; in a range, or in all of the log.",
        examples=(Example("/types"),),
        handle=types,
        parameters=TypesOf,
        answer=TypePage,
        permission=Permission.AUDIT,
    ),
    Operation(
        name="readFeed",
        method="GET",
        path="/feed",
        summary="Everything in the log, in the order in which it came in, for readers that catch up and go on.",
        details=(
            "Keep `cursor`, and send it with the next request: each event comes exactly once, none is skipped that was "
            "written late, and for that the feed stays some seconds behind. `wait_s` waits for what is to come."
        ),
        examples=(Example("/feed?limit=20&wait_s=1"),),
        handle=feed,
        parameters=FeedFrom,
        answer=FeedPage,
        permission=Permission.AUDIT,
    ),
    Operation(
        name="getLogHealth",
        method="GET",
        path="/health",
        summary="Whether the log answers, about how much it holds, and what came last.",
        examples=(Example("/health"),),
        handle=health,
        answer=LogHealth,
        permission=Permission.AUDIT,
    ),
)
