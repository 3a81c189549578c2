"""The metrics of Twofold, with their names, units and descriptions. Pure.

docs/operations.md has the same table for operators, with the attributes of the metrics. A test compares the two tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MetricAttributes = Mapping[str, str | int]


@dataclass(frozen=True)
class Metric:
    """An instrument. Its name follows OpenTelemetry's semantic conventions, its unit follows UCUM."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    description: str
    buckets: Sequence[float] | None = None
    """The upper bounds of a histogram."""


_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_DATABASE_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
_HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

ACCEPTED = Metric("twofold.events.accepted", "counter", "{event}", "New events in `events`.")
STORED = Metric("twofold.events.stored", "counter", "{event}", "New events in `event_store`.")
DUPLICATES = Metric(
    "twofold.events.duplicates", "counter", "{event}", "Events that were stored before, with equal content."
)
REJECTED = Metric("twofold.events.rejected", "counter", "{event}", "Events that were refused for good.")
DEAD_LETTERS = Metric("twofold.dead_letters.kept", "counter", "{dead_letter}", "Deliveries kept as dead letters.")
COMMIT_SIZE = Metric("twofold.commit.size", "histogram", "{event}", "Events in one group commit.", _COUNTS)
COMMIT_TIME = Metric("db.client.operation.duration", "histogram", "s", "Duration of one group commit.", _DATABASE_S)
REQUEST_TIME = Metric("http.server.request.duration", "histogram", "s", "Duration of one request.", _HTTP_S)
RELAYED = Metric("twofold.relay.events", "counter", "{event}", "Events with an outbox entry that the relay handled.")
PENDING = Metric("twofold.events.pending", "gauge", "{event}", "Accepted events not yet known to be in the log.")
OLDEST_PENDING = Metric("twofold.events.pending.age", "gauge", "s", "Age of the oldest pending event.")
UNRESOLVED = Metric("twofold.events.unresolved", "gauge", "{event}", "Accepted events that the relay does not retry.")
COMPLETENESS_DELAY = Metric("twofold.completeness.delay", "gauge", "s", "Age of the low watermark.")
LOG_REGRESSED = Metric(
    "twofold.log.regressed", "gauge", "1", "1 if the log lacks events of an earlier checkpoint, or 0."
)
CONSUMER_LAG = Metric(
    "twofold.consumer.lag", "gauge", "{message}", "Records that the consumer group has not committed."
)

METRICS = (
    *(ACCEPTED, STORED, DUPLICATES, REJECTED, DEAD_LETTERS, COMMIT_SIZE, COMMIT_TIME, REQUEST_TIME),
    *(RELAYED, PENDING, OLDEST_PENDING, UNRESOLVED, COMPLETENESS_DELAY, LOG_REGRESSED, CONSUMER_LAG),
)
