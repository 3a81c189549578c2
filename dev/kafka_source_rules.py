"""What KafkaSource retries and when, and what it may commit. Pure.

Read from knative-extensions/eventing-kafka-broker v1.23: WebClientCloudEventSender and OffsetManager in
`data-plane/dispatcher`, `control-plane/pkg/reconciler/source` and `control-plane/pkg/core/config`.
"""

from dataclasses import dataclass
from enum import StrEnum

_RETRIED_BELOW_500 = frozenset({404, 408, 409, 429})
_DEFAULT_TIMEOUT = 600.0


def is_success(status: int) -> bool:
    """Whether the sink took the event. A redirect is a failure."""
    return status < 300


def is_retried(status: int) -> bool:
    """Whether that answer is retried; all others from 300 on go straight to the dead-letter sink."""
    return status >= 500 or status in _RETRIED_BELOW_500


class BackoffPolicy(StrEnum):
    """How the delay before a retry grows."""

    LINEAR = "linear"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True)
class Retries:
    """A source's `delivery`, in seconds. The same for the sink and for the dead-letter sink."""

    retry: int
    policy: BackoffPolicy
    delay: float
    timeout: float

    def delay_before(self, retry: int) -> float:
        """How long to wait before that retry, the first being 1. There is no cap."""
        return self.delay * (retry if self.policy is BackoffPolicy.LINEAR else 2**retry)


def retries(
    retry: int | None = None,
    policy: BackoffPolicy | None = None,
    delay: float | None = None,
    timeout: float | None = None,
    *,
    dead_letters: bool = False,
) -> Retries:
    """What a `delivery` block with these members does: without `retry` it retries nothing.

    No block at all is 10 retries, exponential from 0.3 s.
    """
    if not dead_letters and all(member is None for member in (retry, policy, delay, timeout)):
        return Retries(10, BackoffPolicy.EXPONENTIAL, 0.3, _DEFAULT_TIMEOUT)
    return Retries(retry or 0, policy or BackoffPolicy.EXPONENTIAL, delay or 0.0, timeout or _DEFAULT_TIMEOUT)


class OffsetTracker:
    """What may be committed of one partition: the end of the unbroken run of finished offsets."""

    def __init__(self, first: int) -> None:
        self._end = self._committed = self._next = first
        self._finished_ahead: set[int] = set()
        self.revoked = False
        """The partition is another consumer's now, or its log a new one: what finishes no longer counts."""

    def received(self, offset: int) -> None:
        """Note a record; offsets that the log skipped before it are finished."""
        for skipped in range(self._next, offset):
            self.finished(skipped)
        self._next = max(self._next, offset + 1)

    def finished(self, offset: int) -> None:
        """Note that a record was delivered, dead-lettered or given up."""
        self._finished_ahead.add(offset)
        while self._end in self._finished_ahead:
            self._finished_ahead.remove(self._end)
            self._end += 1

    def to_commit(self) -> int | None:
        """The offset to commit, if it is a new one."""
        return self._end if self._end > self._committed else None

    def committed(self, offset: int) -> None:
        """Note that the broker took a commit."""
        self._committed = offset
