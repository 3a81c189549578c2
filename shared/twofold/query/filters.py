"""One `Filter` for all readers: its MongoDB query and its cursors. Pure: no I/O, no clock.

A filter has values and no operators. Only this module builds the query, from typed scalars.

Pages neither repeat nor skip an event that was stored before the first page, for three reasons:

1. Events have one order: by `timestamp`, then by `order`. Neither field of a stored event changes. Events of two
   publishers can have an equal pair. A page holds the events of a pair together (`read/equal_keys.py`).
2. The cursor of a page is the pair of the last event that the reader looked at. It counts no events, so an event that
   is inserted or deleted meanwhile shifts no page.
3. The query of the next page selects the events behind the pair, and no other events: `timestamp` is at the cursor's
   or beyond it, except events with the same `timestamp` and an `order` up to the cursor's.

The query in 3 is one range of an index, less an exception. An `$or` of two ranges would need two scans.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twofold.errors import Malformed
from twofold.event.time import EARLIEST
from twofold.query.cursors import PageCursor, decode_cursor, encode_cursor, invalid_cursor
from twofold.query.limits import MAX_LIMIT, MAX_TYPES
from twofold.query.parameters import AttributeValue, QueryTime, SearchText, WholeNumber
from twofold.query.text import searchable_text

FIELDS = {
    "aggregate": "aggregate_id",
    "correlation": "metadata.correlation_id",
    "user": "metadata.user_id",
    "types": "event_type",
    "service": "metadata.service_name",
}
"""Filters and their stored fields, the most selective filter first."""

_FILTERED = frozenset(FIELDS.values())

Order = Literal["newest", "oldest"]

PageKey = tuple[Any, ...]
"""The values by which a page is sorted: `(timestamp, order)`, in other sortings with a value in front."""


class Range(BaseModel):
    """A range of time, from `since` up to but not including `until`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    since: Annotated[QueryTime | None, Field(alias="from", description="at this time (RFC 3339), or later")] = None
    until: Annotated[QueryTime | None, Field(alias="to", description="before this time (RFC 3339)")] = None

    @model_validator(mode="after")
    def _is_forward(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise Malformed("must not be later than `to`", "from")
        return self


class Conditions(BaseModel):
    """The filters by value. An event must match all of them. Values are compared whole and literally."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    types: Annotated[
        tuple[AttributeValue, ...],
        Field(alias="type", max_length=MAX_TYPES, description="of this type; repeat it for several types"),
    ] = ()
    aggregate: Annotated[AttributeValue | None, Field(description="of this aggregate, such as an execution")] = None
    correlation: Annotated[AttributeValue | None, Field(description="with this correlation id")] = None
    user: Annotated[AttributeValue | None, Field(description="of this user")] = None
    service: Annotated[AttributeValue | None, Field(description="from this service (CloudEvents' source)")] = None

    def query(self) -> dict[str, Any]:
        """Return the MongoDB query."""
        values = {field: getattr(self, name) for name, field in FIELDS.items()}
        return {field: value if isinstance(value, str) else _any_of(value) for field, value in values.items() if value}


class Ranged(Range, Conditions):
    """The filters by value and by time."""

    def query(self) -> dict[str, Any]:
        """Return the MongoDB query."""
        bounds = {"$gte": self.since, "$lt": self.until}
        bounds = {operator: bound for operator, bound in bounds.items() if bound is not None}
        return super().query() | ({"timestamp": bounds} if bounds else {})


class Selection(Ranged):
    """The filters by value, by time and by text. MongoDB cannot search for the text, so `query` leaves it out."""

    text: Annotated[
        SearchText | None,
        Field(description="with this text in an id, a type, the metadata or the payload; the case does not matter"),
    ] = None

    def has_text(self, document: Mapping[str, Any]) -> bool:
        """Return True if the stored event has the `text`, or if the filter has no text."""
        return self.text is None or self.text.casefold() in searchable_text(document)


class Filter(Selection):
    """One page of a selection: its order, its largest size, and its start."""

    order: Annotated[
        Order, Field(description="the order by time; events of equal time are in the order of publication")
    ] = "newest"
    limit: Annotated[
        WholeNumber,
        Field(
            ge=1,
            le=MAX_LIMIT,
            description="the number of events; a page has more if the following events have the time and the order of "
            "its last event",
        ),
    ] = 100
    cursor: Annotated[
        AttributeValue | None,
        Field(description="`next` of the previous page, with the same filters and the same order"),
    ] = None

    @model_validator(mode="after")
    def _cursor_is_valid(self) -> Self:
        if self.cursor is not None:
            self._decode(self.cursor)
        return self

    @property
    def page_cursor(self) -> PageCursor | None:
        """The decoded `cursor`, behind which the page begins. A page without a `cursor` begins with the first event."""
        return None if self.cursor is None else self._decode(self.cursor)

    @property
    def sort(self) -> list[tuple[str, int]]:
        """The order in MongoDB's form."""
        direction = -1 if self.order == "newest" else 1
        return [("timestamp", direction), ("order", direction)]

    def query(self, end: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the query from behind the cursor up to the pair of the stored document `end`, which is included."""
        query, cursor = super().query(), self.page_cursor
        bounds, excluded = query.pop("timestamp", {}), []
        later, earlier = ("$lt", "$gt") if self.order == "newest" else ("$gt", "$lt")
        if cursor is not None:
            # A forged cursor must not replace the lower bound `since` with an earlier time.
            start = cursor.timestamp if self.order == "newest" else max(cursor.timestamp, self.since or EARLIEST)
            bounds[f"{later}e"] = start
            excluded.append({"timestamp": cursor.timestamp, "order": {f"{earlier}e": cursor.order}})
        if end is not None:
            bounds.pop(earlier, None)  # `end` lies before `until` already
            bounds[f"{earlier}e"] = end["timestamp"]
            excluded.append({"timestamp": end["timestamp"], "order": {later: end["order"]}})
        return query | ({"timestamp": bounds} if bounds else {}) | ({"$nor": excluded} if excluded else {})

    def query_by(self, field: str | None) -> dict[str, Any]:
        """Return the query by `field` and by time alone, from behind the cursor."""
        return {name: value for name, value in self.query().items() if name == field or name not in _FILTERED}

    def query_at(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the query for the selected events with the `key` of a stored document."""
        return super().query() | {field: field_value(document, field) for field, _ in self.sort}

    def key(self, document: Mapping[str, Any]) -> PageKey | None:
        """Return the document's place in the order. A document that was changed in the database can have none."""
        return PageCursor.of(document)

    def asks_more_than(self, field: str | None) -> bool:
        """Return True if there is a filter by text, or by a field other than `field`."""
        return self.text is not None or any(name != field for name in Conditions.query(self))

    def next_cursor(self, document: Mapping[str, Any]) -> str | None:
        """Return the cursor behind a stored document, for the same filters and order. See `PageCursor.of` for None."""
        cursor = PageCursor.of(document)
        return None if cursor is None else self._encode(cursor)

    def with_cursor(self, cursor: PageCursor) -> Self:
        """Return the same filter for the page behind `cursor`."""
        return self.model_copy(update={"cursor": self._encode(cursor)})

    @property
    def cursor_key(self) -> bytes:
        """The key of the cursors: the parameters without `limit` and `cursor`."""
        return json.dumps(self.model_dump(mode="json", exclude={"limit", "cursor"}), sort_keys=True).encode()

    def _encode(self, cursor: PageCursor) -> str:
        return encode_cursor(cursor.to_bytes(), self.cursor_key)

    def _decode(self, cursor: str) -> PageCursor:
        """Return the decoded cursor. Raises `Malformed` unless `_encode` made it for the same filters and order."""
        try:
            return PageCursor.from_bytes(decode_cursor(cursor, self.cursor_key))
        except ValueError:
            raise invalid_cursor() from None


def field_value(document: Mapping[str, Any], field: str) -> Any:
    """Return the value of a field. A dot in `field` leads into a subdocument. Raises `KeyError` if it is absent."""
    value: Any = document
    for name in field.split("."):
        value = value[name]
    return value


def _any_of(values: tuple[str, ...]) -> Any:
    return values[0] if len(values) == 1 else {"$in": sorted(set(values))}
