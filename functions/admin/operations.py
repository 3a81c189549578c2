"""What `admin` answers: `events` as those see it who look after it, exports, and deletions on record."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.responses import Response

from twofold.errors import NotFound, NotInLog
from twofold.query.filters import Filter, Order, Selection
from twofold.query.limits import MAX_LIMIT
from twofold.query.parameters import AttributeValue, EventId, SearchText, WholeNumber, not_blank
from twofold.read.admin_events import AdminEventsRepository, Browse, EventDetail
from twofold.read.admin_statistics import AdminStatistics, RecentStatistics, UserOverview
from twofold.read.export import MEDIA_TYPES, Format, encode_export
from twofold.read.models import EventPage
from twofold.storage.archive import Archive, Deletion, Deletions
from twofold.web.api import Call, Example, Operation
from twofold.web.permissions import Permission
from twofold.web.streaming import LiveResponse

MAX_HOURS = 31 * 24


@dataclass(frozen=True)
class Admin:
    """What the operations work with."""

    events: AdminEventsRepository
    statistics: AdminStatistics
    archive: Archive


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OneEvent(_Strict):
    """Which event."""

    event_id: EventId


class ToDelete(OneEvent):
    """Which event, and why."""

    reason: Annotated[
        SearchText,
        AfterValidator(not_blank),
        Field(description="why, not blank; it is kept with the event and the name of who asked"),
    ]


class Export(Selection):
    """Which events, in which order and format."""

    order: Annotated[Order, Field(description="by time, and by id where the time is equal")] = "newest"
    form: Annotated[Format, Field(alias="format", description="JSON in one array, or one object a line, or CSV")] = (
        "json"
    )


class Hours(_Strict):
    """How far back."""

    hours: Annotated[WholeNumber, Field(ge=1, le=MAX_HOURS, description="how many hours, up to now")] = 24


class HoursOfUser(Hours):
    """Whose, and how far back."""

    user: Annotated[AttributeValue, Field(description="the user")]


class DeletionsFrom(_Strict):
    """A page of deletions."""

    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_LIMIT, description="how many at most")] = 100
    cursor: Annotated[AttributeValue | None, Field(description="`next` of the page before")] = None


async def browse(call: Call[Admin]) -> EventPage:
    """Some events."""
    return await call.service.events.browse(call.parameters)


async def detail(call: Call[Admin]) -> EventDetail:
    """One event and its kin."""
    found = await call.service.events.detail(call.parameters.event_id)
    if found is None:
        raise NotFound("there is no such event in `events`", "event_id")
    return found


async def statistics(call: Call[Admin]) -> RecentStatistics:
    """The last hours."""
    return await call.service.statistics.last_hours(call.parameters.hours)


async def user(call: Call[Admin]) -> UserOverview:
    """One user."""
    return await call.service.statistics.user(call.parameters.user, call.parameters.hours)


async def export_events(call: Call[Admin]) -> Response:
    """All that is selected, as a file."""
    asked: Export = call.parameters
    wanted = Filter.model_validate(asked.model_dump(exclude={"form"}))
    pieces = encode_export(call.service.events.export(wanted), asked.form)
    response = await LiveResponse.of(_begun(pieces), bytes, MEDIA_TYPES[asked.form])
    response.headers["content-disposition"] = f'attachment; filename="events.{asked.form}"'
    return response


@asynccontextmanager
async def _begun(pieces: AsyncGenerator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The same, but what goes wrong before the first piece goes wrong here: then the answer says so."""
    async with aclosing(pieces):
        first = await anext(pieces)

        async def whole() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        yield whole()


async def delete(call: Call[Admin]) -> Deletion:
    """Take an event out of `events`."""
    asked: ToDelete = call.parameters
    return await call.service.archive.delete(asked.event_id, call.caller.subject, asked.reason)


async def deletions(call: Call[Admin]) -> Deletions:
    """What was deleted."""
    asked: DeletionsFrom = call.parameters
    return await call.service.archive.deletions(asked.limit, asked.cursor)


OPERATIONS: tuple[Operation[Admin], ...] = (
    Operation(
        name="browseEvents",
        method="GET",
        path="/events",
        summary="Events of all users by any combination of filters, in the order of time, type or service.",
        details=(
            "A page's `next` is the `cursor` of the following one. A search for `text`, and a filter in another order "
            "than that of time, may be `cut` when its time is over: `next` goes on from there."
        ),
        examples=(
            Example("/events?sort=type&limit=20"),
            Example("/events?aggregate=order-7&order=oldest", what="one aggregate, as it happened"),
        ),
        handle=browse,
        parameters=Browse,
        answer=EventPage,
        permission=Permission.ADMIN,
    ),
    Operation(
        name="getEventDetail",
        method="GET",
        path="/events/{event_id}",
        summary="One event, where it is on its way into the log, and a timeline of those that are related to it.",
        examples=(Example("/events/$EVENT_ID"),),
        handle=detail,
        parameters=OneEvent,
        answer=EventDetail,
        permission=Permission.ADMIN,
        refusals=(NotFound,),
    ),
    Operation(
        name="deleteEvent",
        method="DELETE",
        path="/events/{event_id}",
        summary="Take an event out of `events`, and archive it with your name and a reason; the log keeps it.",
        details="Only what is in the log with equal content: a mark, or a log without the event, is a 409.",
        examples=(Example("/events/$EVENT_ID?reason=published+by+mistake"),),
        handle=delete,
        parameters=ToDelete,
        answer=Deletion,
        permission=Permission.ADMIN,
        refusals=(NotFound, NotInLog),
    ),
    Operation(
        name="listDeletions",
        method="GET",
        path="/deletions",
        summary="What was deleted from `events`, by whom, when and why; the newest first.",
        examples=(Example("/deletions?limit=20"),),
        handle=deletions,
        parameters=DeletionsFrom,
        answer=Deletions,
        permission=Permission.ADMIN,
    ),
    Operation(
        name="exportEvents",
        method="GET",
        path="/export",
        summary="All events that the filters select, however many, as CSV, JSON or NDJSON.",
        details=(
            "It is sent as it is read. If it breaks off, the connection ends without the end of the body: what came is "
            "not all; so it does after the time that a request may take, 10 minutes as deployed. In CSV, a value that "
            "a spreadsheet would take for a formula has a ' before it, and so has such a part behind a `;`."
        ),
        examples=(Example("/export?format=csv&type=order.paid"),),
        handle=export_events,
        parameters=Export,
        permission=Permission.ADMIN,
        media_types=tuple(MEDIA_TYPES.values()),
    ),
    Operation(
        name="getAdminStatistics",
        method="GET",
        path="/statistics",
        summary="The last hours at a glance: how many events, types, users, errors, and how long aggregates took.",
        examples=(Example("/statistics?hours=24"),),
        handle=statistics,
        parameters=Hours,
        answer=RecentStatistics,
        permission=Permission.ADMIN,
    ),
    Operation(
        name="getUserOverview",
        method="GET",
        path="/user",
        summary="One user's last hours: how many events, of which types, errors, and the newest.",
        examples=(Example("/user?user=ann"),),
        handle=user,
        parameters=HoursOfUser,
        answer=UserOverview,
        permission=Permission.ADMIN,
    ),
)
