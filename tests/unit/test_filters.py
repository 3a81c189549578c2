"""Cursors, and the text that a search looks into. contract/test_pages.py runs the queries of filters on MongoDB."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import an_event
from twofold.errors import Malformed
from twofold.query.cursors import PageCursor, encode_cursor
from twofold.query.filters import Filter
from twofold.query.text import searchable_text

HERE = PageCursor(datetime(2026, 7, 1, 12, tzinfo=UTC), 2**60 + 1)
ASKED: dict[str, Any] = {"type": ("a", "b"), "user": "u", "from": "2026-07-01T00:00:00Z", "order": "oldest"}


def with_cursor(cursor: str, **changes: Any) -> Filter:
    return Filter.model_validate(ASKED | changes | {"cursor": cursor})


def valid_cursor() -> str:
    cursor = Filter.model_validate(ASKED).with_cursor(HERE).cursor
    assert cursor is not None
    return cursor


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001 - hypothesis needs naive times
        lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=UTC)
    ),
    st.integers(0, 2**63 - 1),
)
def test_a_cursor_is_decoded_to_the_same_time_and_order(time: datetime, order: int) -> None:
    wanted = Filter().with_cursor(PageCursor(time, order))
    assert Filter.model_validate(wanted.model_dump()).page_cursor == (time, order)


def test_a_cursor_is_valid_with_another_limit() -> None:
    assert with_cursor(valid_cursor(), limit=7).page_cursor == HERE


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize(
    "changes",
    [{"type": ("a",)}, {"user": "v"}, {"order": "newest"}, {"from": "2026-07-02T00:00:00Z"}, {"text": "x"}],
    ids=str,
)
def test_a_cursor_of_another_query_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(valid_cursor(), **changes)


@pytest.mark.guarantee("R23")
@given(st.data())
def test_an_altered_cursor_is_rejected(data: st.DataObject) -> None:
    """The change of any character to any other character is noticed."""
    cursor = valid_cursor()
    index = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters(exclude_categories=["Cs"]).filter(lambda character: character != cursor[index]))
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(cursor[:index] + other + cursor[index + 1 :])


@pytest.mark.parametrize("cursor", ["a", "AAAA", "=", "é", "A" * 1000, valid_cursor() + "A", valid_cursor() + "=", " "])
def test_an_invalid_cursor_is_rejected(cursor: str) -> None:
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(cursor)


@pytest.mark.parametrize("content", [b"\x7f" * 8 + bytes(8), bytes(8) + b"\xff" * 8, bytes(24), b""])
def test_a_forged_cursor_with_an_impossible_time_or_order_is_rejected(content: bytes) -> None:
    """A correct checksum does not turn the answer into a 500."""
    wanted = Filter.model_validate(ASKED)
    forged = encode_cursor(content, wanted.cursor_key)
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(forged)


def test_a_forged_cursor_gives_no_access_beyond_the_filters() -> None:
    """The checksum is no secret: the query keeps a reader within its filters."""
    wanted = Filter.model_validate(ASKED)
    query = wanted.with_cursor(PageCursor(HERE.timestamp - timedelta(days=9), HERE.order)).query()
    assert query["timestamp"] == {"$gte": wanted.since}
    assert query["metadata.user_id"] == "u"


def text_in(text: str, **changes: Any) -> bool:
    event = an_event(**changes)
    return Filter(text=text).has_text(event.to_document())


@pytest.mark.guarantee("R25")
@pytest.mark.parametrize(
    "text",
    [
        "order.created",
        "CREATED",
        "order-",
        "/shop",
        "Größe",
        "GRÖSSE",
        "größ",
        "4711",
        "47",
        "true",
        "null",
        "1.5",
        "deep",
        "X-1",
        "tenant",
        '"q"',
        "\\",
    ],
)
def test_text_is_found_in_every_searchable_value(text: str) -> None:
    metadata = {"service_name": "/shop", "correlation_id": "x-1", "extensions": {"tenant": "t"}}
    payload = {"Größe": ["DEEP", {"n": 4711, "f": 1.5, "b": True, "z": None}], "quoted": 'say "q" and \\'}
    assert text_in(text, metadata=metadata, payload=payload)


@pytest.mark.guarantee("R30")
@pytest.mark.parametrize("text", [".*", "^order", "order.creat[e]d", "$where", "order_created", "%"])
def test_text_is_compared_literally(text: str) -> None:
    assert not text_in(text)


def test_text_is_not_found_across_two_values() -> None:
    assert not text_in("pq", payload={"x": "p", "y": "q", "p": "q"})  # a UUID has neither letter
    assert "a\0b" in searchable_text(an_event(payload={"a": "b"}).to_document())
