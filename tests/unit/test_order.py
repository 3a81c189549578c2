"""The order of publication of one publisher: distinct and increasing, whatever its clock does."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.event.order import MAX_ORDER, is_order, parse_order
from twofold.write.order import PublicationOrder

NOON = datetime(2026, 7, 1, 12, 0, 0, 123999, tzinfo=UTC)
MILLISECONDS = 1782907200123


def test_the_first_order_is_the_clocks_milliseconds() -> None:
    assert PublicationOrder().next(NOON) == MILLISECONDS << 20


def test_the_events_of_a_millisecond_have_consecutive_orders() -> None:
    order = PublicationOrder()
    assert [order.next(NOON) - (MILLISECONDS << 20) for _ in range(3)] == [0, 1, 2]


@given(st.lists(st.integers(-(10**9), 10**9), max_size=30))
def test_the_orders_increase_with_any_clock(offsets: list[int]) -> None:
    """The clock may go back. An order is never lower than its clock."""
    order = PublicationOrder()
    given_ = [order.next(NOON + timedelta(milliseconds=offset)) for offset in offsets]
    assert given_ == sorted(set(given_))
    assert all(one >> 20 >= MILLISECONDS + offset for one, offset in zip(given_, offsets, strict=True))
    assert all(is_order(one) for one in given_)


def test_concurrent_threads_get_distinct_orders() -> None:
    order = PublicationOrder()
    with ThreadPoolExecutor(8) as threads:
        given_ = [list(part) for part in threads.map(lambda _: [order.next(NOON) for _ in range(2000)], range(8))]
    assert len({one for part in given_ for one in part}) == 8 * 2000
    assert all(part == sorted(part) for part in given_)


def test_an_order_is_valid_until_2248() -> None:
    assert PublicationOrder().next(datetime(2248, 1, 1, tzinfo=UTC)) <= MAX_ORDER
    assert PublicationOrder().next(datetime(1960, 1, 1, tzinfo=UTC)) == 0


@given(st.integers(0, MAX_ORDER))
def test_an_attribute_has_one_form_for_each_order(order: int) -> None:
    assert parse_order(str(order)) == order
    for other in (f"0{order}", f"+{order}", f"-{order}", f" {order}", f"{order}\n", f"{order}.0"):
        with pytest.raises(ValueError, match="decimal digits"):
            parse_order(other)


@pytest.mark.parametrize("value", [None, True, -1, MAX_ORDER + 1, "1", 1.0, [1]])
def test_other_values_are_no_order(value: object) -> None:
    assert not is_order(value)
