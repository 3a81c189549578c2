"""The indexes behind a reader's filters, and the choice of the index for a query.

Each index has the order of pages, `(timestamp, order)`, behind its own field, so a page is one scan of one index.
"""

from pymongo import ASCENDING, IndexModel

from twofold.query.filters import FIELDS, Conditions

INDEXED_FILTERS = {"events": tuple(FIELDS), "event_store": ("aggregate", "correlation", "user", "types")}
"""The filters with an index, by collection. The log has few: every index costs every insert, for ever. No reader of
the log asks by service."""

_PAGE_ORDER = [("timestamp", ASCENDING), ("order", ASCENDING)]
_PARTIAL = {
    "aggregate": {"aggregate_id": {"$gt": ""}},  # an event without an aggregate stores null
    "correlation": {"metadata.correlation_id": {"$exists": True}},
    "user": {"metadata.user_id": {"$exists": True}},
}
"""Optional fields: an index holds only the events that have its field, so other events do not pay for it."""


def filter_indexes(collection: str) -> list[IndexModel]:
    """Return the indexes for pages of `collection`: `by_time`, and `by_NAME` for each indexed filter."""
    by_filter = [
        IndexModel(
            [(FIELDS[name], ASCENDING), *_PAGE_ORDER],
            name=f"by_{name}",
            **({"partialFilterExpression": _PARTIAL[name]} if name in _PARTIAL else {}),
        )
        for name in FIELDS
        if name in INDEXED_FILTERS[collection]
    ]
    return [IndexModel(_PAGE_ORDER, name="by_time"), *by_filter]


def index_for(collection: str, wanted: Conditions, visible_user: str | None = None) -> str:
    """Return the filter whose index leaves the fewest events for `wanted`, or else `time`.

    A caller who may read only the events of `visible_user` always gets the index by user: the time of an answer then
    tells nothing about the events of other users.
    """
    if visible_user is not None:
        return "user"
    indexed = INDEXED_FILTERS[collection]
    return next((name for name in FIELDS if name in indexed and getattr(wanted, name)), "time")
