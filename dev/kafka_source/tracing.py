"""The W3C trace headers of the data plane's requests. Pure, except for the random span ids.

The data plane reads `traceparent`, `tracestate` and `baggage` of a record with OpenTelemetry's propagators, and gives
each request a span of its own. It leaks: a request for a record without a trace carries the trace of an earlier record.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]([0-9a-f])(?:-.*)?")


class TraceContext(NamedTuple):
    """The trace of a record."""

    trace_id: str
    sampled: bool
    state: str | None = None
    baggage: str | None = None

    def headers(self) -> Iterator[tuple[str, str]]:
        """Yield the headers of a request, with a new span id."""
        yield "traceparent", f"00-{self.trace_id}-{secrets.token_hex(8)}-{self.sampled:02x}"
        if self.state is not None:
            yield "tracestate", self.state
        if self.baggage is not None:
            yield "baggage", self.baggage


class TraceMemory:
    """The trace of the last record that had one."""

    def __init__(self) -> None:
        self._last: TraceContext | None = None

    def of(self, headers: Iterable[tuple[str, bytes | None]]) -> TraceContext | None:
        """Return the trace of a record with these headers, or of an earlier record."""
        values = {name: value.decode("latin-1") for name, value in headers if value is not None}
        parent = _TRACEPARENT.fullmatch(values.get("traceparent", ""))
        if parent is not None:
            sampled = bool(int(parent[2], 16) & 1)
            self._last = TraceContext(parent[1], sampled, values.get("tracestate"), values.get("baggage"))
        return self._last
