"""TODO module."""

from collections.abc import Iterable

from pymongo import ASCENDING, IndexModel

from twofold.query.filters import FIELDS, Conditions

_TAIL = [("timestamp", ASCENDING), ("_id", ASCENDING)]


_OPTIONAL = {
    "aggregate": {"aggregate_id": {"$gt": ""}},  # it is stored as null where it is absent
    "correlation": {"metadata.correlation_id": {"$exists": True}},
    "user": {"metadata.user_id": {"$exists": True}},
}
"""Only events that have the field are in its index: it costs the others nothing."""


def filter_indexes(filters: Iterable[str]) -> list[IndexModel]:
    """The indexes that pages by `filters` need, each in the order of pages, and the one for all other pages."""
    wanted = set(filters)
    by_filter = [
        IndexModel(
            [(field, ASCENDING), *_TAIL],
            name=f"by_{name}",
            **({"partialFilterExpression": _OPTIONAL[name]} if name in _OPTIONAL else {}),
        )
        for name, field in FIELDS.items()
        if name in wanted
    ]
    return [IndexModel(_TAIL, name="by_time"), *by_filter]


def index_for(wanted: Conditions, indexed: frozenset[str], scope: str | None = None) -> str:
    """The filter whose index serves `wanted`: the one that leaves the fewest events, or else `time`.

    For a caller who may read the events of one user alone, `scope`, it is always that user's: nobody can tell from how
    long an answer takes what others have.
    """
    if scope is not None:
        return "user"
    return next((name for name in FIELDS if name in indexed and getattr(wanted, name)), "time")
