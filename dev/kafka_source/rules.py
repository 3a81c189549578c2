"""The retries of KafkaSource, and the offsets that it may commit. Pure.

Source: knative-extensions/eventing-kafka-broker v1.23: WebClientCloudEventSender and OffsetManager in
`data-plane/dispatcher`, `control-plane/pkg/reconciler/source` and `control-plane/pkg/core/config`.
"""

from dataclasses import dataclass
from enum import StrEnum

_RETRIED_BELOW_500 = frozenset({404, 408, 409, 429})
_DEFAULT_TIMEOUT = 600.0
_SHORTEST_TIMER = 0.001
_LONGEST_BURST_S = 0.1


def is_success(status: int) -> bool:
    """Return True if the sink took the event. A redirect is a failure."""
    return status < 300


def is_retried(status: int) -> bool:
    """Return True for a retried status. Every other status from 300 on leads straight to the dead-letter sink."""
    return status >= 500 or status in _RETRIED_BELOW_500


class BackoffPolicy(StrEnum):
    """The growth of the delay before a retry."""

    LINEAR = "linear"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True)
class Retries:
    """The `delivery` of a source, in seconds, for the sink and for the dead-letter sink."""

    retry: int
    policy: BackoffPolicy
    delay: float
    timeout: float

    def delay_before(self, retry: int) -> float:
        """Return the seconds to wait before a retry; the first retry is 1. The delay has no maximum."""
        return self.delay * (retry if self.policy is BackoffPolicy.LINEAR else 2**retry)


def retries(
    retry: int | None = None,
    policy: BackoffPolicy | None = None,
    delay: float | None = None,
    timeout: float | None = None,
    *,
    dead_letters: bool = False,
) -> Retries:
    """Return the meaning of a `delivery` block with these members: without `retry` it has no retries.

    A source without a `delivery` block has 10 retries, exponential from 0.3 s. A delay of 0, or an absent delay, means
    no retries too: Vert.x refuses a timer of 0 ms.
    """
    if not dead_letters and all(member is None for member in (retry, policy, delay, timeout)):
        return Retries(10, BackoffPolicy.EXPONENTIAL, 0.3, _DEFAULT_TIMEOUT)
    delay = delay or 0.0
    tries = (retry or 0) if delay >= _SHORTEST_TIMER else 0
    return Retries(tries, policy or BackoffPolicy.EXPONENTIAL, delay, timeout or _DEFAULT_TIMEOUT)


class RecordRate:
    """A bound of the records that a consumer delivers: a bucket that fills with `rate` records a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = rate * _LONGEST_BURST_S
        self._left = self._most
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until records may start. A rate of 0 is no bound. `now` is in seconds and never falls."""
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return -self._left / self._rate if self._left < 0 else 0.0

    def started(self, records: int) -> None:
        """Note records that started. A batch may start more than the bucket has, and then the next batch waits."""
        if self._rate:
            self._left -= records


class OffsetTracker:
    """The offset to commit in one partition: the end of the unbroken run of finished offsets."""

    def __init__(self, first: int) -> None:
        self._end = self._committed = self._next = first
        self._finished_ahead: set[int] = set()
        self.revoked = False
        """True after the partition went to another consumer, or got a new log: finished offsets no longer count."""

    def received(self, offset: int) -> None:
        """Note a record. Offsets that the log skipped before the record are finished."""
        for skipped in range(self._next, offset):
            self.finished(skipped)
        self._next = max(self._next, offset + 1)

    def finished(self, offset: int) -> None:
        """Note a record that is delivered, dead-lettered or lost."""
        self._finished_ahead.add(offset)
        while self._end in self._finished_ahead:
            self._finished_ahead.remove(self._end)
            self._end += 1

    def to_commit(self) -> int | None:
        """Return the offset to commit; None if it is committed already."""
        return self._end if self._end > self._committed else None

    def committed(self, offset: int) -> None:
        """Note a successful commit."""
        self._committed = offset
