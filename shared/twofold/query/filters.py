"""Which events a reader asks for: one `Filter` for all readers, its MongoDB query, its cursors. Pure: no I/O, no clock.

A filter names values, never operators: the query is built here alone, of typed scalars.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twofold.errors import Malformed
from twofold.event.time import EARLIEST
from twofold.query.cursors import PageCursor, decode_cursor, encode_cursor, invalid_cursor
from twofold.query.limits import MAX_LIMIT, MAX_TYPES
from twofold.query.parameters import AttributeValue, QueryTime, SearchText, WholeNumber

FIELDS = {
    "aggregate": "aggregate_id",
    "correlation": "metadata.correlation_id",
    "user": "metadata.user_id",
    "types": "event_type",
    "service": "metadata.service_name",
}
"""The field that each filter compares; first those that leave the fewest events."""


Order = Literal["newest", "oldest"]


class Range(BaseModel):
    """From a moment, and up to but without another."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    since: Annotated[QueryTime | None, Field(alias="from", description="at this time (RFC 3339), or later")] = None
    until: Annotated[QueryTime | None, Field(alias="to", description="before this time (RFC 3339)")] = None

    @model_validator(mode="after")
    def _is_forward(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise Malformed("must not be later than `to`", "from")
        return self


class Conditions(BaseModel):
    """Which events, whenever they were: all conditions hold at once. Values are compared whole and literally."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    types: Annotated[
        tuple[AttributeValue, ...],
        Field(alias="type", max_length=MAX_TYPES, description="of this type; repeated: of any of these"),
    ] = ()
    aggregate: Annotated[AttributeValue | None, Field(description="of this aggregate, such as an execution")] = None
    correlation: Annotated[AttributeValue | None, Field(description="with this correlation id")] = None
    user: Annotated[AttributeValue | None, Field(description="of this user")] = None
    service: Annotated[AttributeValue | None, Field(description="from this service (CloudEvents' source)")] = None

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
        SearchText | None,
        Field(description="with this text, whatever its case, in an id, a type, the metadata or the payload"),
    ] = None

    def has_text(self, document: Mapping[str, Any]) -> bool:
        """Whether the event that `document` holds has the `text`, or no text is asked for."""
        return self.text is None or self.text.casefold() in searchable_text(document)


class Filter(Selection):
    """One page of a selection: in which order, how many, and from where on."""

    order: Annotated[Order, Field(description="by time, and by id where the time is equal")] = "newest"
    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_LIMIT, description="how many events at most")] = 100
    cursor: Annotated[
        AttributeValue | None, Field(description="`next` of the page before, with the same filters and the same order")
    ] = None

    @model_validator(mode="after")
    def _has_its_own_cursor(self) -> Self:
        if self.cursor is not None:
            self._read(self.cursor)
        return self

    @property
    def position(self) -> PageCursor | None:
        """Where the page begins: behind it; None is the very beginning."""
        return None if self.cursor is None else self._read(self.cursor)

    @property
    def sort(self) -> list[tuple[str, int]]:
        """The order as MongoDB takes it."""
        direction = -1 if self.order == "newest" else 1
        return [("timestamp", direction), ("_id", direction)]

    def query(self, end: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The query, from the cursor on, and no further than the stored document `end`."""
        query, position = super().query(), self.position
        bounds, without = query.pop("timestamp", {}), []
        later, earlier = ("$lt", "$gt") if self.order == "newest" else ("$gt", "$lt")
        if position is not None:
            at = position.timestamp if self.order == "newest" else max(position.timestamp, self.since or EARLIEST)
            bounds[f"{later}e"] = at
            without.append({"timestamp": position.timestamp, "_id": {f"{earlier}e": position.event_id}})
        if end is not None:
            bounds.pop(earlier, None)  # the end is within what is asked for
            bounds[f"{earlier}e"] = end["timestamp"]
            without.append({"timestamp": end["timestamp"], "_id": {later: end["_id"]}})
        return query | ({"timestamp": bounds} if bounds else {}) | ({"$nor": without} if without else {})

    def query_by(self, field: str | None) -> dict[str, Any]:
        """The query that asks for `field` and the time alone, from the cursor on."""
        return {name: value for name, value in self.query().items() if name == field or name not in _COMPARED}

    def asks_more_than(self, field: str | None) -> bool:
        """Whether it asks for anything but `field` and the time."""
        return self.text is not None or any(name != field for name in Conditions.query(self))

    def cursor_at(self, position: PageCursor) -> str:
        """The cursor for what comes behind `position`: opaque, and good for this selection and order alone."""
        return encode_cursor(position.packed(), self.question)

    def behind(self, document: Mapping[str, Any]) -> str | None:
        """The cursor for what comes behind a stored document; None if it has no place in the order."""
        position = page_cursor_of(document)
        return None if position is None else self.cursor_at(position)

    def after(self, position: PageCursor) -> Self:
        """The same, from behind `position` on."""
        return self.model_copy(update={"cursor": self.cursor_at(position)})

    @property
    def question(self) -> bytes:
        """What its cursors are good for: all that is asked but how many, and from where on."""
        return json.dumps(self.model_dump(mode="json", exclude={"limit", "cursor"}), sort_keys=True).encode()

    def _read(self, cursor: str) -> PageCursor:
        """Raises `Malformed` unless `cursor_at` made it for the same selection and order."""
        try:
            return PageCursor.of_packed(decode_cursor(cursor, self.question))
        except ValueError:
            raise invalid_cursor() from None


_COMPARED = frozenset(FIELDS.values())


def page_cursor_of(document: Mapping[str, Any]) -> PageCursor | None:
    """The place of a stored document; None if somebody changed it in the database so that it has none."""
    at, event_id = document.get("timestamp"), document.get("_id")
    return PageCursor(at, event_id) if isinstance(at, datetime) and isinstance(event_id, UUID) else None


def field_value(document: Mapping[str, Any], field: str) -> Any:
    """The value of a field whose name may have a dot."""
    value: Any = document
    for name in field.split("."):
        value = value[name]
    return value


def _any_of(values: tuple[str, ...]) -> Any:
    return values[0] if len(values) == 1 else {"$in": sorted(set(values))}


def searchable_text(document: Mapping[str, Any]) -> str:
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
