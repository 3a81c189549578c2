"""What Twofold says about itself while it runs: the metrics, and the null form that tells nobody. Pure.

A function that is told of no collector works with `SILENT`: nothing of OpenTelemetry is even imported then, and what is
left is a call or two for each group of events that is written. `twofold.otel` has the form that tells a collector.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from twofold.attributes import RawHeaders
from twofold.errors import TwofoldError
from twofold.receiving import Received

Attributes = Mapping[str, str | int]
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Metric:
    """One instrument, named by OpenTelemetry's semantic conventions; its unit is in UCUM."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    says: str
    buckets: Sequence[float] | None = None
    """Upper bounds, for a histogram."""


_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_DATABASE_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
_HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

ACCEPTED = Metric("twofold.events.accepted", "counter", "{event}", "Events that are new in `events`.")
STORED = Metric("twofold.events.stored", "counter", "{event}", "Events that are new in `event_store`.")
DUPLICATES = Metric("twofold.events.duplicates", "counter", "{event}", "Events that were there already, and equal.")
REJECTED = Metric("twofold.events.rejected", "counter", "{event}", "Events that were refused for good.")
LETTERS = Metric("twofold.dead_letters.kept", "counter", "{letter}", "Dead letters that were kept.")
COMMIT_SIZE = Metric("twofold.commit.size", "histogram", "{event}", "Events in one write.", _COUNTS)
COMMIT_TIME = Metric("db.client.operation.duration", "histogram", "s", "How long that write took.", _DATABASE_S)
REQUEST_TIME = Metric("http.server.request.duration", "histogram", "s", "How long an answer took.", _HTTP_S)
RELAYED = Metric("twofold.relay.events", "counter", "{event}", "Marked events, by what the relay did with them.")
PENDING = Metric("twofold.events.pending", "gauge", "{event}", "Accepted events not known to be in the log.")
OLDEST_PENDING = Metric("twofold.events.pending.age", "gauge", "s", "How long ago the oldest of them was accepted.")
GIVEN_UP = Metric("twofold.events.given_up", "gauge", "{event}", "Accepted events that are tried no more.")
DELAY = Metric("twofold.completeness.delay", "gauge", "s", "How long ago the log was complete.")
SET_BACK = Metric("twofold.log.set_back", "gauge", "1", "1 if the log lacks what it had, else 0.")
LAG = Metric("twofold.consumer.lag", "gauge", "{message}", "Records that the consumer group has not committed.")

METRICS = (
    *(ACCEPTED, STORED, DUPLICATES, REJECTED, LETTERS, COMMIT_SIZE, COMMIT_TIME, REQUEST_TIME),
    *(RELAYED, PENDING, OLDEST_PENDING, GIVEN_UP, DELAY, SET_BACK, LAG),
)


class Tracing(Protocol):
    """Spans around the two places where an event changes hands."""

    async def publishing(
        self,
        received: Iterable[Received | TwofoldError],
        publish: Callable[[Iterable[Received | TwofoldError]], Awaitable[list[Outcome]]],
    ) -> list[Outcome]:
        """Call `publish` with `received`, each event within a span of its own, and carrying its trace."""

    async def storing(
        self, headers: RawHeaders, body: bytes, take: Callable[[RawHeaders, bytes], Awaitable[str]]
    ) -> str:
        """Call `take`, which says what became of the delivery, within a span that continues the event's trace."""


_NOTHING = nullcontext()


class Telemetry:
    """Tells nobody anything: the null form, and what every other form can do."""

    tracing: Tracing | None = None
    """None where no span is wanted: then nothing is done for one."""

    def record(self, metric: Metric, value: float, attributes: Attributes | None = None) -> None:
        """Add `value` to a counter, or note it."""

    def committing(self, collection: str, size: int) -> AbstractContextManager[None]:
        """Note the size of the write that the block does, how long it took, and what it failed with."""
        return _NOTHING

    def close(self) -> None:
        """Send what is left, and wait for that a few seconds at most. Nothing is recorded afterwards."""


SILENT = Telemetry()

EVENT_ID: ContextVar[str | None] = ContextVar("event_id", default=None)
"""The `id` of the event that is being worked on, where the request's headers don't have it: for the logs."""
TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""The trace that it belongs to, where the request's headers don't have it."""
