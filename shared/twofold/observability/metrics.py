"""What Twofold says about itself while it runs: the metrics, and the null form that tells nobody. Pure.

A function that is told of no collector works with `SILENT`: nothing of OpenTelemetry is even imported then, and what is
left is a call or two for each group of events that is written. `twofold.otel` has the form that tells a collector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MetricAttributes = Mapping[str, str | int]


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


DEAD_LETTERS = Metric("twofold.dead_letters.kept", "counter", "{letter}", "Dead letters that were kept.")


COMMIT_SIZE = Metric("twofold.commit.size", "histogram", "{event}", "Events in one write.", _COUNTS)


COMMIT_TIME = Metric("db.client.operation.duration", "histogram", "s", "How long that write took.", _DATABASE_S)


REQUEST_TIME = Metric("http.server.request.duration", "histogram", "s", "How long an answer took.", _HTTP_S)


RELAYED = Metric("twofold.relay.events", "counter", "{event}", "Marked events, by what the relay did with them.")


PENDING = Metric("twofold.events.pending", "gauge", "{event}", "Accepted events not known to be in the log.")


OLDEST_PENDING = Metric("twofold.events.pending.age", "gauge", "s", "How long ago the oldest of them was accepted.")


UNRESOLVED = Metric("twofold.events.given_up", "gauge", "{event}", "Accepted events that are tried no more.")


COMPLETENESS_DELAY = Metric("twofold.completeness.delay", "gauge", "s", "How long ago the log was complete.")


LOG_REGRESSED = Metric("twofold.log.regressed", "gauge", "1", "1 if the log lacks what it had, else 0.")


CONSUMER_LAG = Metric(
    "twofold.consumer.lag", "gauge", "{message}", "Records that the consumer group has not committed."
)


METRICS = (
    *(ACCEPTED, STORED, DUPLICATES, REJECTED, DEAD_LETTERS, COMMIT_SIZE, COMMIT_TIME, REQUEST_TIME),
    *(RELAYED, PENDING, OLDEST_PENDING, UNRESOLVED, COMPLETENESS_DELAY, LOG_REGRESSED, CONSUMER_LAG),
)
