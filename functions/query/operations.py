"""What `query` answers. Who may not read everybody's events gets their own alone, and no trace of others."""

import time
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from twofold.errors import Gone, Malformed, NotFound
from twofold.query.filters import Conditions, Filter, Ranged
from twofold.query.parameters import EventId
from twofold.read.live import LiveEvents, StreamItem
from twofold.read.models import EventOut, EventPage
from twofold.read.pages import EventReader
from twofold.read.statistics import EventCounts, EventStatistics, TypeNames
from twofold.web.api import Call, Example, Operation
from twofold.web.streaming import LiveResponse

RECONNECT_MS = 2000
"""How long the reader of a stream that ended waits before it connects again."""


@dataclass(frozen=True)
class Query:
    """What the operations work with."""

    reader: EventReader
    statistics: EventStatistics
    live: LiveEvents


class OneEvent(BaseModel):
    """Which event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: EventId


async def page(call: Call[Query]) -> EventPage:
    """Some events."""
    return await call.service.reader.page(call.parameters, call.caller.visible_user)


async def one(call: Call[Query]) -> EventOut:
    """One event; another user's is no more there than one that never was."""
    event = await call.service.reader.get(call.parameters.event_id, call.caller.visible_user)
    if event is None:
        raise NotFound("there is no such event", "event_id")
    return event


async def statistics(call: Call[Query]) -> EventCounts:
    """Counts."""
    return await call.service.statistics.count(call.parameters, call.caller.visible_user)


async def types(call: Call[Query]) -> TypeNames:
    """The types."""
    return await call.service.statistics.types(call.parameters, call.caller.visible_user)


async def stream(call: Call[Query]) -> Response:
    """Events as they come."""
    given = call.request.headers.getlist("last-event-id")
    if len(given) > 1:
        raise Malformed("must be given once", "Last-Event-ID")
    seconds = call.caller.until - time.time()
    following = call.service.live.follow(call.parameters, given[0] if given else None, call.caller.subject, seconds)
    return await LiveResponse.of(following, _as_sse, "text/event-stream")


def _as_sse(moment: StreamItem) -> bytes:
    """Server-sent events (HTML, 9.2): a heart-beat has no data, and moves the reader's place on all the same."""
    if moment.event is None:
        return f": here\nretry: {RECONNECT_MS}\nid: {moment.place}\n\n".encode()
    return f"id: {moment.place}\nevent: event\ndata: {moment.event.model_dump_json()}\n\n".encode()


OPERATIONS: tuple[Operation[Query], ...] = (
    Operation(
        name="listEvents",
        method="GET",
        path="/events",
        summary="Events by any combination of filters, page by page.",
        details=(
            "A page's `next` is the `cursor` of the following one. Each event comes once, whatever is published "
            "meanwhile. A search for `text` looks through the events that the other filters leave, in order, for about "
            "a second: if that was not enough, `cut` is true, and `next` goes on from there."
        ),
        examples=(
            Example("/events?type=order.created&type=order.paid&limit=20"),
            Example("/events?text=express&from=2026-01-01T00:00:00Z&order=oldest", what="a search for text"),
        ),
        handle=page,
        parameters=Filter,
        answer=EventPage,
        of_user=True,
    ),
    Operation(
        name="getEvent",
        method="GET",
        path="/events/{event_id}",
        summary="One event.",
        examples=(Example("/events/$EVENT_ID"),),
        handle=one,
        parameters=OneEvent,
        answer=EventOut,
        refusals=(NotFound,),
    ),
    Operation(
        name="getStatistics",
        method="GET",
        path="/statistics",
        summary="How many events a range holds: in all, by type, by service, by hour.",
        details=(
            "Without a range: the last 24 hours; with `from` or `to` alone: the 24 hours from then on, or up to then. "
            "At most 31 days, unless the operator says otherwise."
        ),
        examples=(Example("/statistics?type=order.created"),),
        handle=statistics,
        parameters=Ranged,
        answer=EventCounts,
        of_user=True,
    ),
    Operation(
        name="listTypes",
        method="GET",
        path="/types",
        summary="Which types of events there are.",
        examples=(Example("/types"),),
        handle=types,
        parameters=Conditions,
        answer=TypeNames,
        of_user=True,
    ),
    Operation(
        name="streamEvents",
        method="GET",
        path="/stream",
        summary="Events as they come, as server-sent events.",
        details=(
            "It ends after some minutes, or with the token; connect again with the last `id` as `Last-Event-ID`, and "
            "nothing is left out. (A browser's `EventSource` would by itself, but can't send a token: use `fetch`.) A "
            "heart-beat has an `id` and no data. 410 says that the place is too long ago. To have all that is "
            "there, and all that comes: open the stream first, then read the pages."
        ),
        examples=(Example("/stream?type=order.created", "-N --max-time 5"),),
        handle=stream,
        parameters=Conditions,
        of_user=True,
        refusals=(Gone,),
        media_types=("text/event-stream",),
        headers={"Last-Event-ID": "go on behind the event, or the heart-beat, with this `id`"},
    ),
)
