"""The interface of telemetry, and its null form `SILENT`.

A function without a collector works with `SILENT` and imports nothing of OpenTelemetry. The cost is then a call or two
for every group commit. `otel.py` has the form that sends to a collector.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_http import IncomingEvent
from twofold.errors import TwofoldError
from twofold.observability.metrics import Metric, MetricAttributes

Outcome = TypeVar("Outcome")


class Tracing(Protocol):
    """Spans around publishing and storing."""

    async def publishing(
        self,
        received: Iterable[IncomingEvent | TwofoldError],
        publish: Callable[[Iterable[IncomingEvent | TwofoldError]], Awaitable[list[Outcome]]],
    ) -> list[Outcome]:
        """Call `publish` with the events of `received`. Every event has a span of its own and carries its trace."""

    async def storing(
        self, headers: RawHeaders, body: bytes, store: Callable[[RawHeaders, bytes], Awaitable[str]]
    ) -> str:
        """Call `store`, which returns the outcome of a delivery, in a span that continues the event's trace."""


_NOTHING = nullcontext()


class Telemetry:
    """Telemetry that is turned off: its methods record nothing. `OpenTelemetry` extends this class."""

    tracing: Tracing | None = None
    """None if no spans are wanted. Callers then do no work for tracing."""

    def record(self, metric: Metric, value: float, attributes: MetricAttributes | None = None) -> None:
        """Add `value` to a counter, or record it in a histogram or a gauge."""

    def committing(self, collection: str, size: int) -> AbstractContextManager[None]:
        """Record the write that the block does: its size, its duration, and its error."""
        return _NOTHING

    def close(self) -> None:
        """Send the last values, and wait a few seconds at most. Nothing is recorded afterwards."""


SILENT = Telemetry()
