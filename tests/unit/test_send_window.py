"""The number of events that a run of the relay may send, by the backlog."""

from collections.abc import Awaitable, Callable

import pytest

from twofold.kafka.lag import Backlog
from twofold.write.send_window import LARGE_BACKLOG, LOOKS, SendWindow

pytestmark = [pytest.mark.guarantee("R9"), pytest.mark.fault("A5")]

BATCH = 10


def reader(lags: list[int | None]) -> tuple[Callable[[], Awaitable[Backlog | None]], list[int | None]]:
    """Return a reader of these lags, the last for ever, and the lags that it read. None: Kafka is unavailable."""
    looks: list[int | None] = []

    async def read() -> Backlog | None:
        looks.append(lags[min(len(looks), len(lags) - 1)])
        return None if looks[-1] is None else Backlog({0: looks[-1]}, {})

    return read, looks


async def test_without_a_backlog_the_window_is_large() -> None:
    read, looks = reader([0])
    window = SendWindow(read, BATCH)
    await window.open()
    assert [await window.take(BATCH) for _ in range(LARGE_BACKLOG)] == [BATCH] * LARGE_BACKLOG
    assert len(looks) == 1


async def test_a_large_backlog_leaves_one_batch_and_a_few_looks() -> None:
    """The looks end: a run of the relay has other work than to wait for `store`."""
    read, looks = reader([1_000_000])
    window = SendWindow(read, BATCH, pause_s=0)
    await window.open()
    assert [await window.take(BATCH) for _ in range(5)] == [BATCH, 0, 0, 0, 0]
    assert len(looks) == 1 + LOOKS


async def test_a_run_sends_as_fast_as_the_group_drains() -> None:
    large = LARGE_BACKLOG * BATCH
    read, looks = reader([large, large, large, 0, large, large - BATCH])
    window = SendWindow(read, BATCH, pause_s=0)
    await window.open()
    taken = [await window.take(BATCH) for _ in range(LARGE_BACKLOG + 2)]
    assert taken == [BATCH] * (LARGE_BACKLOG + 2)
    assert len(looks) == 6


async def test_an_unavailable_kafka_closes_the_window() -> None:
    read, _ = reader([None])
    window = SendWindow(read, BATCH)
    await window.open()
    assert await window.take(BATCH) == 0
    read, _ = reader([1_000_000, None])
    window = SendWindow(read, BATCH)
    await window.open()
    assert await window.take(BATCH + 1) == 0
    assert window.backlog is None
