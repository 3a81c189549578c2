"""The order of publication: a number for each accepted event. Pure: the caller passes the time of its clock.

A publisher gives increasing numbers, so its events have the order in which it accepted them, also events of one
millisecond, and also after a step back of its clock. Numbers of different publishers compare as their clocks do. Two
publishers can give the same number.
"""

import threading
from datetime import datetime, timedelta

from twofold.event.time import EARLIEST

BITS_BELOW_MILLISECOND = 20
"""A publisher can accept a million events in a millisecond before its numbers run ahead of its clock."""

_MILLISECOND = timedelta(milliseconds=1)


class PublicationOrder:
    """The numbers of one publisher. Several threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = -1

    def next(self, now: datetime) -> int:
        """Return `max(last + 1, milliseconds << 20)`. The number fits into 63 bits until the year 2248."""
        from_clock = ((now - EARLIEST) // _MILLISECOND) << BITS_BELOW_MILLISECOND
        with self._lock:
            self._last = max(self._last + 1, from_clock)
            return self._last
