"""The result of a run of the relay, and its metrics."""

from dataclasses import dataclass
from datetime import datetime

from twofold.kafka.lag import Backlog
from twofold.observability.metrics import (
    COMPLETENESS_DELAY,
    CONSUMER_LAG,
    LOG_REGRESSED,
    OLDEST_PENDING,
    PENDING,
    RELAYED,
    UNRESOLVED,
)
from twofold.observability.telemetry import Telemetry
from twofold.settings import KafkaSettings
from twofold.storage.checkpoints import Checkpoint
from twofold.storage.outbox import FINAL_STATES


@dataclass(slots=True)
class RelayRun:
    """The number of events by the relay's decision, and the checkpoint at the end of the run."""

    confirmed: int = 0
    conflicting: int = 0
    dead: int = 0
    unreadable: int = 0
    stuck: int = 0
    held: int = 0
    resent: int = 0
    unsent: int = 0
    checkpoint: Checkpoint | None = None


def record_run(telemetry: Telemetry, run: RelayRun) -> None:
    """Record the decisions of a run."""
    for outcome in ("confirmed", "conflicting", "dead", "unreadable", "stuck", "held", "resent", "unsent"):
        telemetry.record(RELAYED, getattr(run, outcome), {"twofold.outcome": outcome})


def record_checkpoint(telemetry: Telemetry, checkpoint: Checkpoint) -> None:
    """Record the figures of a checkpoint."""
    for state in FINAL_STATES:
        telemetry.record(UNRESOLVED, getattr(checkpoint, state), {"twofold.state": state})
    telemetry.record(PENDING, checkpoint.pending)
    telemetry.record(OLDEST_PENDING, _age_s(checkpoint.at, checkpoint.oldest_pending or checkpoint.at))
    telemetry.record(LOG_REGRESSED, int(checkpoint.log_regressed))
    if checkpoint.low_watermark is not None:
        telemetry.record(COMPLETENESS_DELAY, _age_s(checkpoint.at, checkpoint.low_watermark))


def record_lag(telemetry: Telemetry, backlog: Backlog, settings: KafkaSettings) -> None:
    """Record the lag of the consumer group by partition."""
    group: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.destination.name": settings.kafka_topic,
        "messaging.consumer.group.name": settings.kafka_consumer_group,
    }
    for partition, lag in backlog.lag.items():
        telemetry.record(CONSUMER_LAG, lag, group | {"messaging.destination.partition.id": str(partition)})


def _age_s(now: datetime, then: datetime) -> float:
    return max((now - then).total_seconds(), 0.0)
