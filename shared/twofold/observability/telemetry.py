"""TODO module."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_http import IncomingEvent
from twofold.errors import TwofoldError
from twofold.observability.metrics import Metric, MetricAttributes

Outcome = TypeVar("Outcome")


class Tracing(Protocol):
    """Spans around the two places where an event changes hands."""

    async def publishing(
        self,
        received: Iterable[IncomingEvent | TwofoldError],
        publish: Callable[[Iterable[IncomingEvent | TwofoldError]], Awaitable[list[Outcome]]],
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

    def record(self, metric: Metric, value: float, attributes: MetricAttributes | None = None) -> None:
        """Add `value` to a counter, or note it."""

    def committing(self, collection: str, size: int) -> AbstractContextManager[None]:
        """Note the size of the write that the block does, how long it took, and what it failed with."""
        return _NOTHING

    def close(self) -> None:
        """Send what is left, and wait for that a few seconds at most. Nothing is recorded afterwards."""


SILENT = Telemetry()
