"""The figures of the runs: rates, ratios and bounds, and the complaints that make a run worthless. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class LoadResult:
    """The result of one run of the load generator."""

    answered: int
    """Requests with an answer of any status, without the requests that still waited at the end."""
    refused: int
    """Answers with status 4xx or 5xx."""
    broken: int
    """Connections that failed, broke or timed out."""
    seconds: float
    p50_ms: float
    p99_ms: float
    repeated: bool
    """True if the ready-made requests did not last, so that the generator repeated requests."""


@dataclass(frozen=True)
class Held:
    """The contents of the servers after a run, read directly."""

    stored: int
    """Distinct events of the run in the collection of the function."""
    dead: int = 0
    """Dead letters."""
    outbox_entries: int = 0
    """Events with an outbox entry: relay sends them until they are in `event_store`."""
    in_topic: int = 0
    """Records that the run added to the topic."""


@dataclass(frozen=True)
class Measurement:
    """A run of a function. Its acknowledged events include the warm-up."""

    load: LoadResult
    warm_up: LoadResult
    held: Held
    events_per_request: int = 1
    stores: bool = True
    sends: bool = False

    @property
    def rate(self) -> float:
        """The acknowledged events per second, without the warm-up."""
        return self.load.answered * self.events_per_request / self.load.seconds

    @property
    def ran_out(self) -> bool:
        """True if events were sent twice to a function that stores events."""
        return self.stores and (self.load.repeated or self.warm_up.repeated)

    @property
    def acknowledged(self) -> int:
        """The number of events that the function accepted, by its answers."""
        answered = self.load.answered + self.warm_up.answered
        return (answered - self.load.refused - self.warm_up.refused) * self.events_per_request


def complaints(run: Measurement) -> list[str]:
    """Return the reasons not to believe this run."""
    refused, broken = run.load.refused + run.warm_up.refused, run.load.broken + run.warm_up.broken
    found = []
    if not run.load.answered:
        found.append("nothing was answered")
    if refused:
        found.append(f"{refused} requests were refused")
    if broken:
        found.append(f"{broken} connections broke or timed out")
    if run.held.dead:
        found.append(f"{run.held.dead} valid events became dead letters")
    if run.stores:
        if run.ran_out:
            found.append("the ready-made events did not last, so some were sent twice")
        if run.held.stored < run.acknowledged:
            found.append(f"{run.acknowledged} events were acknowledged, and {run.held.stored} are stored")
    if run.sends and run.held.in_topic + run.held.outbox_entries < run.acknowledged:
        sent = f"{run.held.in_topic} are in the topic and {run.held.outbox_entries} have an outbox entry"
        found.append(f"{run.acknowledged} events were acknowledged: {sent}")
    return found


RATES = {
    "limit": "limit_rps",
    "store": "store_rps",
    "naive store": "naive_store_rps",
    "publish": "publish_rps",
    "naive publish": "naive_publish_rps",
    "publish batch": "publish_batch_eps",
}
"""The JSON key of each contestant's rate."""


@dataclass(frozen=True)
class Floor:
    """The least ratio of the rates of two contestants."""

    ratio: str
    of: str
    to: str
    least: float


FLOORS = (
    Floor("store_of_limit", "store", "limit", 0.45),
    Floor("store_vs_naive", "store", "naive store", 6.0),
    Floor("publish_vs_naive", "publish", "naive publish", 4.0),
    Floor("batch_vs_single", "publish batch", "publish", 2.5),
)


@dataclass(frozen=True)
class Ceiling:
    """The greatest allowed ratio."""

    ratio: str
    most: float


COLD_START = Ceiling("cold_start_ratio", 2.0)
"""The start of the slowest function, in starts of a bare functions-framework."""

KAFKA_FROZEN = Ceiling("publish_p99_kafka_frozen", 1.5)
KAFKA_GONE = Ceiling("publish_p99_kafka_gone", 1.5)
"""The p99 of `publish` while Kafka is unavailable, in p99s with Kafka."""
SLOWER_KAFKA_GONE = Ceiling("publish_slower_kafka_gone", 1.25)
"""The time of `publish` for an event while Kafka is gone, in times with Kafka."""
CEILINGS = (COLD_START, KAFKA_FROZEN, KAFKA_GONE, SLOWER_KAFKA_GONE)


def p99_ratio(without: Sequence[Measurement], with_kafka: Sequence[Measurement]) -> float:
    """Return the median p99 without Kafka, in median p99s with Kafka."""
    return round(median(run.load.p99_ms for run in without) / median(run.load.p99_ms for run in with_kafka), 3)


def slowdown(without: Sequence[Measurement], with_kafka: Sequence[Measurement]) -> float:
    """Return the median time for an event without Kafka, in median times with Kafka."""
    return round(median(run.rate for run in with_kafka) / median(run.rate for run in without), 3)


def cold_start_ratio(seconds: Mapping[str, Sequence[float]], bare: str) -> float:
    """Return the longest median of the functions, in medians of `bare`."""
    medians = {name: median(taken) for name, taken in seconds.items()}
    return round(max(taken for name, taken in medians.items() if name != bare) / medians[bare], 3)


@dataclass(frozen=True)
class Figures:
    """The report: the median rate of each contestant, and the ratios with bounds."""

    limit_rps: float
    store_rps: float
    naive_store_rps: float
    publish_rps: float
    naive_publish_rps: float
    publish_batch_eps: float
    store_of_limit: float
    store_vs_naive: float
    publish_vs_naive: float
    batch_vs_single: float
    cold_start_ratio: float
    publish_p99_kafka_frozen: float
    publish_p99_kafka_gone: float
    publish_slower_kafka_gone: float

    @classmethod
    def of(cls, runs: Mapping[str, Sequence[Measurement]], ceilings: Mapping[Ceiling, float]) -> "Figures":
        """Compute the figures of the runs, with the measured value for each ceiling."""
        rates = {name: median(run.rate for run in runs[name]) for name in RATES}
        ratios = {floor.ratio: round(rates[floor.of] / rates[floor.to], 3) for floor in FLOORS}
        most = {ceiling.ratio: measured for ceiling, measured in ceilings.items()}
        return cls(**{RATES[name]: round(rate, 1) for name, rate in rates.items()}, **ratios, **most)

    def as_json(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)

    def missed(self) -> list[Floor | Ceiling]:
        """Return the missed bounds."""
        figures = self.as_json()
        floors = [floor for floor in FLOORS if figures[floor.ratio] < floor.least]
        return [*floors, *(ceiling for ceiling in CEILINGS if figures[ceiling.ratio] > ceiling.most)]


def spread(runs: Iterable[Measurement]) -> tuple[float, float]:
    """Return the slowest and the fastest rate."""
    rates = [run.rate for run in runs]
    return min(rates), max(rates)
