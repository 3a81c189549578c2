"""The operations of `admin`: browse, statistics, export and delete in `events`."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.responses import Response

from twofold.errors import NotFound, NotInLog
from twofold.query.filters import Filter, Order, Selection
from twofold.query.limits import MAX_LIMIT
from twofold.query.parameters import AttributeValue, SearchText, WholeNumber, not_blank
from twofold.read.admin_events import AdminEventsRepository, Browse, EventDetail
from twofold.read.admin_statistics import AdminStatistics, RecentStatistics, UserOverview
from twofold.read.export import MEDIA_TYPES, Format, encode_export
from twofold.read.models import EventPage
from twofold.storage.archive import Archive, Deletion, Deletions
from twofold.web.api import Call, Example, Operation
from twofold.web.events import EventPath, by_name
from twofold.web.permissions import Permission
from twofold.web.streaming import LiveResponse

MAX_HOURS = 31 * 24


@dataclass(frozen=True)
class Admin:
    """The service behind the operations."""

    events: AdminEventsRepository
    statistics: AdminStatistics
    archive: Archive


class DeleteRequest(EventPath):
    """An event to delete, and the reason."""

    reason: Annotated[
        SearchText,
        AfterValidator(not_blank),
        Field(description="the reason, not blank; the archive keeps it with the event and the caller's name"),
    ]


class ExportRequest(Selection):
    """The events, the order and the format of an export."""

    order: Annotated[Order, Field(description="by time; events of equal time in the order of publication")] = "newest"
    form: Annotated[Format, Field(alias="format", description="one JSON array, one JSON object a line, or CSV")] = (
        "json"
    )


class HoursRequest(BaseModel):
    """A number of hours up to now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hours: Annotated[WholeNumber, Field(ge=1, le=MAX_HOURS, description="the number of hours up to now")] = 24


class UserRequest(HoursRequest):
    """A user, and a number of hours up to now."""

    user: Annotated[AttributeValue, Field(description="the user")]


class DeletionsRequest(BaseModel):
    """A page of deletions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_LIMIT, description="the largest number of deletions")] = 100
    cursor: Annotated[AttributeValue | None, Field(description="`next` of the previous page")] = None


async def browse(call: Call[Admin]) -> EventPage:
    """Return a page of events."""
    return await call.service.events.browse(call.parameters)


async def detail(call: Call[Admin]) -> EventDetail:
    """Return one event with its related events."""
    found = await call.service.events.detail(call.parameters.event_id)
    if found is None:
        raise NotFound("`events` has no event with this id", call.parameters.place)
    return found


async def statistics(call: Call[Admin]) -> RecentStatistics:
    """Return the figures of the last hours."""
    return await call.service.statistics.last_hours(call.parameters.hours)


async def user(call: Call[Admin]) -> UserOverview:
    """Return the overview of one user."""
    return await call.service.statistics.user(call.parameters.user, call.parameters.hours)


async def export_events(call: Call[Admin]) -> Response:
    """Return the selected events as a file."""
    request: ExportRequest = call.parameters
    wanted = Filter.model_validate(request.model_dump(exclude={"form"}))
    chunks = encode_export(call.service.events.export(wanted), request.form)
    response = await LiveResponse.of(_with_first_chunk(chunks), bytes, MEDIA_TYPES[request.form])
    response.headers["content-disposition"] = f'attachment; filename="events.{request.form}"'
    return response


@asynccontextmanager
async def _with_first_chunk(chunks: AsyncGenerator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Read the first chunk when the block begins, so an early error becomes the status of the answer."""
    async with aclosing(chunks):
        first = await anext(chunks)

        async def complete() -> AsyncIterator[bytes]:
            yield first
            async for chunk in chunks:
                yield chunk

        yield complete()


async def delete(call: Call[Admin]) -> Deletion:
    """Delete an event from `events`, and archive it."""
    request: DeleteRequest = call.parameters
    return await call.service.archive.delete(request.event_id, call.caller.subject, request.reason)


async def deletions(call: Call[Admin]) -> Deletions:
    """Return a page of deletions."""
    request: DeletionsRequest = call.parameters
    return await call.service.archive.deletions(request.limit, request.cursor)


_ONE_EVENT: Operation[Admin] = Operation(
    name="getEventDetail",
    method="GET",
    path="/events/{event_id}",
    summary="One event, the state of its outbox entry, and a timeline of its related events.",
    examples=(Example("/events/$EVENT_ID"),),
    handle=detail,
    parameters=EventPath,
    answer=EventDetail,
    permission=Permission.ADMIN,
    refusals=(NotFound,),
)

OPERATIONS: tuple[Operation[Admin], ...] = (
    Operation(
        name="browseEvents",
        method="GET",
        path="/events",
        summary="Events of all users by any combination of filters, in the order of time, type or service.",
        details=(
            "The `next` of a page is the `cursor` of the following page. A search for `text`, and a filter in an order "
            "other than the time, may be `cut` after its search time: `next` continues the search."
        ),
        examples=(
            Example("/events?sort=type&limit=20"),
            Example("/events?aggregate=order-7&order=oldest", what="the history of one aggregate"),
        ),
        handle=browse,
        parameters=Browse,
        answer=EventPage,
        permission=Permission.ADMIN,
    ),
    _ONE_EVENT,
    by_name(_ONE_EVENT, "findEventDetail"),
    Operation(
        name="deleteEvent",
        method="DELETE",
        path="/events/{event_id}",
        summary="Delete an event from `events`, and archive it with your name and a reason. The log keeps the event.",
        details=(
            "Only an event that the log has with equal content can be deleted. An event that has an outbox entry, or "
            "that the log lacks, gives 409."
        ),
        examples=(Example("/events/$EVENT_ID?reason=published+by+mistake"),),
        handle=delete,
        parameters=DeleteRequest,
        answer=Deletion,
        permission=Permission.ADMIN,
        refusals=(NotFound, NotInLog),
    ),
    Operation(
        name="listDeletions",
        method="GET",
        path="/deletions",
        summary="The deletions from `events`, newest first, with the name, the time and the reason.",
        examples=(Example("/deletions?limit=20"),),
        handle=deletions,
        parameters=DeletionsRequest,
        answer=Deletions,
        permission=Permission.ADMIN,
    ),
    Operation(
        name="exportEvents",
        method="GET",
        path="/export",
        summary="Every event that the filters select, as CSV, JSON or NDJSON.",
        details=(
            "The answer is sent while it is read. If an error or the time limit of a request (10 minutes as deployed) "
            "ends the answer early, the connection closes without the end of the body: the export is then incomplete. "
            "In CSV, a value that a spreadsheet program would run as a formula begins with a `'`. A part of a value "
            "behind a `;` is treated in the same way."
        ),
        examples=(Example("/export?format=csv&type=order.paid"),),
        handle=export_events,
        parameters=ExportRequest,
        permission=Permission.ADMIN,
        media_types=tuple(MEDIA_TYPES.values()),
    ),
    Operation(
        name="getAdminStatistics",
        method="GET",
        path="/statistics",
        summary="Figures of the last hours: events, types, users, errors, and the processing time of aggregates.",
        examples=(Example("/statistics?hours=24"),),
        handle=statistics,
        parameters=HoursRequest,
        answer=RecentStatistics,
        permission=Permission.ADMIN,
    ),
    Operation(
        name="getUserOverview",
        method="GET",
        path="/user",
        summary="One user's last hours: the number of events, their types, errors, and the newest events.",
        examples=(Example("/user?user=ann"),),
        handle=user,
        parameters=UserRequest,
        answer=UserOverview,
        permission=Permission.ADMIN,
    ),
)
