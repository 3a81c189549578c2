"""The operations of `query`. A caller without `events:read:all` sees only their own events."""

import time
from dataclasses import dataclass

from starlette.responses import Response

from twofold.errors import Gone, Malformed, NotFound
from twofold.query.filters import Conditions, Filter, Ranged
from twofold.read.live import LiveEvents, StreamItem
from twofold.read.models import EventOut, EventPage, one_line_json
from twofold.read.pages import EventReader
from twofold.read.statistics import EventCounts, EventStatistics, TypeNames
from twofold.web.api import Call, Example, Operation
from twofold.web.events import EventPath, by_name
from twofold.web.streaming import LiveResponse

RECONNECT_MS = 2000
"""Milliseconds that the reader of an ended stream waits before it connects again."""


@dataclass(frozen=True)
class Query:
    """The service behind the operations."""

    reader: EventReader
    statistics: EventStatistics
    live: LiveEvents


async def page(call: Call[Query]) -> EventPage:
    """Return a page of events."""
    return await call.service.reader.page(call.parameters, call.caller.visible_user)


async def event(call: Call[Query]) -> EventOut:
    """Return one event. The answer for another user's event is the answer for an event that does not exist."""
    found = await call.service.reader.get(call.parameters.event_id, call.caller.visible_user)
    if found is None:
        raise NotFound("there is no event with this id", call.parameters.place)
    return found


async def statistics(call: Call[Query]) -> EventCounts:
    """Return the counts of a range."""
    return await call.service.statistics.count(call.parameters, call.caller.visible_user)


async def types(call: Call[Query]) -> TypeNames:
    """Return the event types."""
    return await call.service.statistics.types(call.parameters, call.caller.visible_user)


async def stream(call: Call[Query]) -> Response:
    """Return a live stream of events."""
    given = call.request.headers.getlist("last-event-id")
    if len(given) > 1:
        raise Malformed("must be given once", "Last-Event-ID")
    seconds = call.caller.until - time.time()
    items = call.service.live.follow(call.parameters, given[0] or None if given else None, call.caller.subject, seconds)
    return await LiveResponse.of(items, _server_sent_event, "text/event-stream")


def _server_sent_event(item: StreamItem) -> bytes:
    """Encode an item (HTML standard, 9.2). A heartbeat has no data, but moves the reader's cursor."""
    if item.event is None:
        return f": here\nretry: {RECONNECT_MS}\nid: {item.cursor}\n\n".encode()
    return f"id: {item.cursor}\nevent: event\ndata: {one_line_json(item.event)}\n\n".encode()


_ONE_EVENT: Operation[Query] = Operation(
    name="getEvent",
    method="GET",
    path="/events/{event_id}",
    summary="One event.",
    examples=(Example("/events/$EVENT_ID"),),
    handle=event,
    parameters=EventPath,
    answer=EventOut,
    refusals=(NotFound,),
)

OPERATIONS: tuple[Operation[Query], ...] = (
    Operation(
        name="listEvents",
        method="GET",
        path="/events",
        summary="A page of events, by any combination of filters.",
        details=(
            "The `next` of a page is the `cursor` of the following page. A reader of successive pages gets every event "
            "once, also while events are published. A search for `text` looks for about a second through the events "
            "that the other filters select. If this time is too short, `cut` is true, and `next` continues the search."
        ),
        examples=(
            Example("/events?type=order.created&type=order.paid&limit=20"),
            Example("/events?text=express&from=2026-01-01T00:00:00Z&order=oldest", what="a search for text"),
        ),
        handle=page,
        parameters=Filter,
        answer=EventPage,
        restricts_user=True,
    ),
    _ONE_EVENT,
    by_name(_ONE_EVENT, "findEvent"),
    Operation(
        name="getStatistics",
        method="GET",
        path="/statistics",
        summary="The number of events in a range: in total, by type, by service, and by hour.",
        details=(
            "The default range is the last 24 hours. With `from` or `to` alone, the range is the 24 hours after `from` "
            "or before `to`. The range has at most 31 days, unless the operator changed this limit."
        ),
        examples=(Example("/statistics?type=order.created"),),
        handle=statistics,
        parameters=Ranged,
        answer=EventCounts,
        restricts_user=True,
    ),
    Operation(
        name="listTypes",
        method="GET",
        path="/types",
        summary="The types of the stored events.",
        examples=(Example("/types"),),
        handle=types,
        parameters=Conditions,
        answer=TypeNames,
        restricts_user=True,
    ),
    Operation(
        name="streamEvents",
        method="GET",
        path="/stream",
        summary="A live stream of events, as server-sent events.",
        details=(
            "The stream ends after some minutes, or with the token. Connect again with the last `id` as "
            "`Last-Event-ID`, and the stream continues without a gap. A browser's `EventSource` does so, but can't "
            "send a token: use `fetch`. A heartbeat has an `id` and no data. 410 means that the `Last-Event-ID` is "
            "too old. To get the stored and the new events, open the stream first, then read the pages."
        ),
        examples=(Example("/stream?type=order.created", "-N --max-time 5"),),
        handle=stream,
        parameters=Conditions,
        restricts_user=True,
        refusals=(Gone,),
        media_types=("text/event-stream",),
        headers={"Last-Event-ID": "the `id` of an event or a heartbeat, after which the stream continues"},
    ),
)
