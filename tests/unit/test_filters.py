"""Cursors, and what a search for text looks into; what MongoDB makes of filters is in contract/test_pages.py."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import an_event
from twofold.errors import Malformed
from twofold.query.cursors import PageCursor, encode_cursor
from twofold.query.filters import Filter
from twofold.query.text import searchable_text

HERE = PageCursor(datetime(2026, 7, 1, 12, tzinfo=UTC), UUID("6ba7c3f4-53c5-4b0e-9d0c-2a6f0e0d7f01"))
ASKED: dict[str, Any] = {"type": ("a", "b"), "user": "u", "from": "2026-07-01T00:00:00Z", "order": "oldest"}


def with_cursor(cursor: str, **changes: Any) -> Filter:
    return Filter.model_validate(ASKED | changes | {"cursor": cursor})


def valid_cursor() -> str:
    cursor = Filter.model_validate(ASKED).with_cursor(HERE).cursor
    assert cursor is not None
    return cursor


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001 - hypothesis wants them naive
        lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=UTC)
    ),
    st.uuids(),
)
def test_a_cursor_is_the_place_it_was_made_of(time: datetime, event_id: UUID) -> None:
    wanted = Filter().with_cursor(PageCursor(time, event_id))
    assert Filter.model_validate(wanted.model_dump()).page_cursor == (time, event_id)


def test_the_limit_may_change_between_pages() -> None:
    assert with_cursor(valid_cursor(), limit=7).page_cursor == HERE


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize(
    "changes",
    [{"type": ("a",)}, {"user": "v"}, {"order": "newest"}, {"from": "2026-07-02T00:00:00Z"}, {"text": "x"}],
    ids=str,
)
def test_a_cursor_of_another_question_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(valid_cursor(), **changes)


@pytest.mark.guarantee("R23")
@given(st.data())
def test_a_cursor_that_was_altered_is_refused(data: st.DataObject) -> None:
    """Whichever character it is, and whatever it becomes."""
    cursor = valid_cursor()
    position = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters(exclude_categories=["Cs"]).filter(lambda character: character != cursor[position]))
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(cursor[:position] + other + cursor[position + 1 :])


@pytest.mark.parametrize("cursor", ["a", "AAAA", "=", "é", "A" * 1000, valid_cursor() + "A", valid_cursor() + "=", " "])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(cursor)


def test_a_cursor_beyond_all_time_is_refused() -> None:
    """Somebody who works the checksum out gets no further than a 400."""
    wanted = Filter.model_validate(ASKED)
    place = b"\x7f" * 8 + uuid4().bytes
    forged = encode_cursor(place, wanted.cursor_key)
    with pytest.raises(Malformed, match="not a cursor of this query"):
        with_cursor(forged)


def test_a_forged_cursor_leads_no_further_than_the_filters() -> None:
    """It is no secret: what keeps a reader within its bounds is the query."""
    wanted = Filter.model_validate(ASKED)
    query = wanted.with_cursor(PageCursor(HERE.timestamp - timedelta(days=9), HERE.event_id)).query()
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
def test_text_is_found_wherever_it_is(text: str) -> None:
    metadata = {"service_name": "/shop", "correlation_id": "x-1", "extensions": {"tenant": "t"}}
    payload = {"Größe": ["DEEP", {"n": 4711, "f": 1.5, "b": True, "z": None}], "quoted": 'say "q" and \\'}
    assert text_in(text, metadata=metadata, payload=payload)


@pytest.mark.guarantee("R30")
@pytest.mark.parametrize("text", [".*", "^order", "order.creat[e]d", "$where", "order_created", "%"])
def test_text_is_taken_literally(text: str) -> None:
    assert not text_in(text)


def test_text_does_not_reach_across_two_values() -> None:
    assert not text_in("pq", payload={"x": "p", "y": "q", "p": "q"})  # no id has these letters
    assert "a\0b" in searchable_text(an_event(payload={"a": "b"}).to_document())
