"""The operations of `audit`, which only read `event_store`: history, security events, types, and the feed."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twofold.errors import Gone, Malformed, NotFound
from twofold.query.filters import Filter, Order, Range
from twofold.query.limits import MAX_LIMIT
from twofold.query.parameters import AttributeValue, QueryTime, WholeNumber
from twofold.read.feed import MAX_WAIT_S, Feed, FeedCursor, FeedPage
from twofold.read.log_summary import LogHealth, LogSummary, TypePage
from twofold.read.models import EventOut, EventPage
from twofold.read.pages import EventReader
from twofold.settings import AuditSettings
from twofold.web.api import Call, Example, Operation
from twofold.web.events import EventPath, by_name
from twofold.web.permissions import Permission

_EVENTS = Field(ge=1, le=MAX_LIMIT, description="the largest number of events")


@dataclass(frozen=True)
class Audit:
    """The service behind the operations."""

    summary: LogSummary
    reader: EventReader
    feed: Feed
    settings: AuditSettings


class LogFilter(Filter):
    """A page of the log. The log has no index by service, because an index costs every insert for ever."""

    service: ClassVar[None] = None  # type: ignore[misc]  # this removes a parameter of the base class


class SecurityFilter(Range):
    """A page of the security events."""

    user: Annotated[AttributeValue | None, Field(description="of this user")] = None
    order: Annotated[Order, Field(description="by time; events of equal time in the order of publication")] = "newest"
    limit: Annotated[WholeNumber, _EVENTS] = 100
    cursor: Annotated[
        AttributeValue | None, Field(description="`next` of the previous page, with the same parameters")
    ] = None


class TypesRequest(Range):
    """A page of the types."""

    after: Annotated[AttributeValue | None, Field(description="`next` of the previous page")] = None
    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_LIMIT, description="the largest number of types")] = 100


class FeedRequest(BaseModel):
    """A page of the feed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: Annotated[
        AttributeValue | None,
        Field(description="`cursor` of the previous page; without it, the feed begins with the first event"),
    ] = None
    since: Annotated[
        QueryTime | None,
        Field(description="instead of a cursor: begin with the events that were stored at this time or later"),
    ] = None
    limit: Annotated[WholeNumber, _EVENTS] = 100
    wait_s: Annotated[
        WholeNumber, Field(ge=0, le=MAX_WAIT_S, description="the seconds to wait if there is no new event")
    ] = 0

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        if self.cursor is not None and self.since is not None:
            raise Malformed("must not be given with `cursor`: the cursor names the start", "since")
        return self

    def start(self) -> FeedCursor:
        """Return the cursor before the page. Raise `Malformed` for an invalid cursor."""
        if self.cursor is not None:
            return FeedCursor.decode(self.cursor)
        return FeedCursor.start() if self.since is None else FeedCursor.at(self.since)


async def page(call: Call[Audit]) -> EventPage:
    """Return a page of the log."""
    return await call.service.reader.page(call.parameters)


async def event(call: Call[Audit]) -> EventOut:
    """Return one event of the log."""
    found = await call.service.reader.get(call.parameters.event_id)
    if found is None:
        raise NotFound("the log has no event with this id", call.parameters.place)
    return found


async def security(call: Call[Audit]) -> EventPage:
    """Return a page of the security events."""
    wanted = Filter(types=call.service.settings.security_types, **call.parameters.model_dump())
    return await call.service.reader.page(wanted)


async def types(call: Call[Audit]) -> TypePage:
    """Return a page of the types."""
    wanted: TypesRequest = call.parameters
    return await call.service.summary.types(wanted, wanted.after, wanted.limit, call.service.settings.query_timeout_s)


async def feed(call: Call[Audit]) -> FeedPage:
    """Return the next events of the feed."""
    wanted: FeedRequest = call.parameters
    longest = timedelta(seconds=wanted.wait_s)
    batch = await call.service.feed.wait(wanted.start(), wanted.limit, call.service.settings.page_bytes, longest)
    return FeedPage.of(batch)


async def health(call: Call[Audit]) -> LogHealth:
    """Return the state of the log."""
    return await call.service.summary.health()


_ONE_EVENT: Operation[Audit] = Operation(
    name="getLogEvent",
    method="GET",
    path="/events/{event_id}",
    summary="One event of the log.",
    examples=(Example("/events/$EVENT_ID"),),
    handle=event,
    parameters=EventPath,
    answer=EventOut,
    permission=Permission.AUDIT,
    refusals=(NotFound,),
)

OPERATIONS: tuple[Operation[Audit], ...] = (
    Operation(
        name="listLog",
        method="GET",
        path="/events",
        summary="The history of an aggregate, a correlation, a user, a type or a range, in any combination.",
        details=(
            "The `next` of a page is the `cursor` of the following page. Events are sorted by time, and events of "
            "equal time in the order of their publication. The newest event is first, unless `order` is `oldest`. A "
            "search for `text` may be `cut`: `next` continues the search."
        ),
        examples=(Example("/events?aggregate=order-7&order=oldest"),),
        handle=page,
        parameters=LogFilter,
        answer=EventPage,
        permission=Permission.AUDIT,
    ),
    _ONE_EVENT,
    by_name(_ONE_EVENT, "findEvent"),
    Operation(
        name="listSecurityEvents",
        method="GET",
        path="/security",
        summary="Security events: the events of the types in the setting SECURITY_TYPES.",
        examples=(Example("/security?limit=20"),),
        handle=security,
        parameters=SecurityFilter,
        answer=EventPage,
        permission=Permission.AUDIT,
    ),
    Operation(
        name="listLogTypes",
        method="GET",
        path="/types",
        summary="The types in the log, with the number of events, and the first and the last time.",
        details="The types are in alphabetical order, page by page, for a range or for the whole log.",
        examples=(Example("/types"),),
        handle=types,
        parameters=TypesRequest,
        answer=TypePage,
        permission=Permission.AUDIT,
    ),
    Operation(
        name="readFeed",
        method="GET",
        path="/feed",
        summary="Every event of the log, in the order of storage, for readers that catch up and then follow.",
        details=(
            "Keep `cursor`, and send it with the next request. A reader then gets every event exactly once, also an "
            "event that became visible late. For this guarantee the feed stays some seconds behind the log. `wait_s` "
            "waits for new events. 410 says that the log was restored from a backup after the cursor was given out: "
            "begin again with `since`, the time of the loss or of the backup, or `stored_at` of your last event if "
            "this is earlier."
        ),
        examples=(Example("/feed?limit=20&wait_s=1"),),
        handle=feed,
        parameters=FeedRequest,
        answer=FeedPage,
        permission=Permission.AUDIT,
        refusals=(Gone,),
    ),
    Operation(
        name="getLogHealth",
        method="GET",
        path="/health",
        summary="The state of the log: the estimated number of events, and the times of the first and the last insert.",
        examples=(Example("/health"),),
        handle=health,
        answer=LogHealth,
        permission=Permission.AUDIT,
    ),
)
