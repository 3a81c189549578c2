"""Which events a reader asks for: one `Filter` for all readers, its MongoDB query, its cursors. Pure: no I/O, no clock.

A filter names values, never operators: the query is built here alone, of typed scalars.
"""

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twofold.errors import Malformed
from twofold.event import EARLIEST
from twofold.parameters import Text, Time, Value, Whole

MAX_LIMIT = 1000
MAX_TYPES = 50
"""MongoDB merges one ordered scan for each; beyond 200 it would sort in memory instead."""

FIELDS = {
    "aggregate": "aggregate_id",
    "correlation": "metadata.correlation_id",
    "user": "metadata.user_id",
    "types": "event_type",
    "service": "metadata.service_name",
}
"""The field that each filter compares; first those that leave the fewest events."""

Order = Literal["newest", "oldest"]


class Position(NamedTuple):
    """A place in the order of `(timestamp, _id)`: behind this event."""

    timestamp: datetime
    event_id: UUID


class Range(BaseModel):
    """From a moment, and up to but without another."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    since: Annotated[Time | None, Field(alias="from", description="at this time (RFC 3339), or later")] = None
    until: Annotated[Time | None, Field(alias="to", description="before this time (RFC 3339)")] = None

    @model_validator(mode="after")
    def _is_forward(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise Malformed("must not be later than `to`", "from")
        return self


class Conditions(BaseModel):
    """Which events, whenever they were: all conditions hold at once. Values are compared whole and literally."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    types: Annotated[
        tuple[Value, ...],
        Field(alias="type", max_length=MAX_TYPES, description="of this type; repeated: of any of these"),
    ] = ()
    aggregate: Annotated[Value | None, Field(description="of this aggregate, such as an execution")] = None
    correlation: Annotated[Value | None, Field(description="with this correlation id")] = None
    user: Annotated[Value | None, Field(description="of this user")] = None
    service: Annotated[Value | None, Field(description="from this service (CloudEvents' source)")] = None

    def query(self) -> dict[str, Any]:
        """The MongoDB query."""
        values = {field: getattr(self, name) for name, field in FIELDS.items()}
        return {field: value if isinstance(value, str) else _any_of(value) for field, value in values.items() if value}


class Ranged(Range, Conditions):
    """Which events, and when."""

    def query(self) -> dict[str, Any]:
        """The MongoDB query."""
        bounds = {"$gte": self.since, "$lt": self.until}
        bounds = {operator: bound for operator, bound in bounds.items() if bound is not None}
        return super().query() | ({"timestamp": bounds} if bounds else {})


class Selection(Ranged):
    """Which events, when, and with which text in them. `query` leaves the text out: MongoDB can't look for it."""

    text: Annotated[
        Text | None,
        Field(description="with this text, whatever its case, in an id, a type, the metadata or the payload"),
    ] = None

    def has_text(self, document: Mapping[str, Any]) -> bool:
        """Whether the event that `document` holds has the `text`, or no text is asked for."""
        return self.text is None or self.text.casefold() in searchable(document)


class Filter(Selection):
    """One page of a selection: in which order, how many, and from where on."""

    order: Annotated[Order, Field(description="by time, and by id where the time is equal")] = "newest"
    limit: Annotated[Whole, Field(ge=1, le=MAX_LIMIT, description="how many events at most")] = 100
    cursor: Annotated[
        Value | None, Field(description="`next` of the page before, with the same filters and the same order")
    ] = None

    @model_validator(mode="after")
    def _has_its_own_cursor(self) -> Self:
        if self.cursor is not None:
            self._read(self.cursor)
        return self

    @property
    def position(self) -> Position | None:
        """Where the page begins: behind it; None is the very beginning."""
        return None if self.cursor is None else self._read(self.cursor)

    @property
    def sort(self) -> list[tuple[str, int]]:
        """The order as MongoDB takes it."""
        direction = -1 if self.order == "newest" else 1
        return [("timestamp", direction), ("_id", direction)]

    def query(self) -> dict[str, Any]:
        """The query, from the cursor on."""
        query = super().query()
        if (position := self.position) is None:
            return query
        bounds = query.pop("timestamp", {})
        if self.order == "newest":
            beyond, bounds["$lte"] = "$lt", position.timestamp
        else:
            beyond, bounds["$gte"] = "$gt", max(position.timestamp, self.since or EARLIEST)
        behind = [{"timestamp": {beyond: position.timestamp}}, {"_id": {beyond: position.event_id}}]
        return query | {"timestamp": bounds, "$or": behind}

    def cursor_at(self, position: Position) -> str:
        """The cursor for what comes behind `position`: opaque, and good for this selection and order alone."""
        milliseconds = (position.timestamp - EARLIEST) // timedelta(milliseconds=1)
        place = struct.pack(">q16s", milliseconds, position.event_id.bytes)
        return base64.urlsafe_b64encode(place + self._checksum(place)).decode().rstrip("=")

    def after(self, position: Position) -> Self:
        """The same, from behind `position` on."""
        return self.model_copy(update={"cursor": self.cursor_at(position)})

    def _read(self, cursor: str) -> Position:
        """Raises `Malformed` unless `cursor_at` made it for the same selection and order."""
        try:
            whole = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            place, checksum = whole[:24], whole[24:]
            milliseconds, event_id = struct.unpack(">q16s", place)
        except (binascii.Error, ValueError, struct.error):
            raise Malformed("is none that was given out", "cursor") from None
        if checksum != self._checksum(place) or cursor != base64.urlsafe_b64encode(whole).decode().rstrip("="):
            raise Malformed("belongs to other filters or another order, or was altered", "cursor")
        try:
            return Position(EARLIEST + timedelta(milliseconds=milliseconds), UUID(bytes=event_id))
        except OverflowError:
            raise Malformed("is none that was given out", "cursor") from None

    def _checksum(self, place: bytes) -> bytes:
        """12 bytes. No secret: a made-up cursor shows nobody more than the filters do, it only begins elsewhere."""
        asked = self.model_dump(mode="json", exclude={"limit", "cursor"})
        text = json.dumps(asked, sort_keys=True).encode()
        return hashlib.sha256(b"twofold cursor 1" + text + place).digest()[:12]


def _any_of(values: tuple[str, ...]) -> Any:
    return values[0] if len(values) == 1 else {"$in": sorted(set(values))}


def searchable(document: Mapping[str, Any]) -> str:
    """What `text` is looked for in, folded to one case: each of these by itself, divided by NUL.

    The id (also as it was given), type, version, aggregate, the values of the metadata, the names of its extensions,
    and all names and values of the payload: strings as they are, numbers, `true`, `false` and `null` as JSON has them.
    """
    own = [str(document["_id"]), document["event_type"], document["event_version"]]
    own += [document["aggregate_id"]] if document["aggregate_id"] is not None else []
    metadata = {name: value for name, value in document["metadata"].items() if name != "time_assigned"}
    return "\0".join([*own, *_leaves([*metadata.values()]), *_leaves(document["payload"])]).casefold()


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield name
            yield from _leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from _leaves(member)
    else:
        yield json.dumps(value)
