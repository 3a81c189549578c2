"""What the runs say: rates, ratios, floors, and whether a run may be believed at all. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Load:
    """What one run of the load generator saw."""

    answered: int
    """Requests that were answered, with whatever status; those under way at the end are not among them."""
    refused: int
    """Answers that say no: 4xx and 5xx."""
    broken: int
    """Connections that could not be made, broke or timed out."""
    seconds: float
    p50_ms: float
    p99_ms: float
    repeated: bool
    """Whether the ready-made requests did not last, so that some were sent twice."""


@dataclass(frozen=True)
class Held:
    """What the servers hold after a run, read from them directly."""

    stored: int
    """Events of the run, each counted once, in the collection that the function answers for."""
    dead: int = 0
    """Dead letters."""
    marked: int = 0
    """Events that still carry the mark, and so are sent again until they are in the log."""
    in_topic: int = 0
    """Records that the run added to the topic."""


@dataclass(frozen=True)
class Run:
    """One measured run, its warm-up included in what was acknowledged."""

    load: Load
    warm_up: Load
    held: Held
    events_per_request: int = 1
    stores: bool = True
    sends: bool = False

    @property
    def rate(self) -> float:
        """Events acknowledged in a second, warm-up excluded."""
        return self.load.answered * self.events_per_request / self.load.seconds

    @property
    def acknowledged(self) -> int:
        """Events that the function took, by its answers."""
        answered = self.load.answered + self.warm_up.answered
        return (answered - self.load.refused - self.warm_up.refused) * self.events_per_request


def complaints(run: Run) -> list[str]:
    """Why this run proves nothing: empty if it does."""
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
        if run.load.repeated or run.warm_up.repeated:
            found.append("the ready-made events did not last, so some were sent twice")
        if run.held.stored < run.acknowledged:
            found.append(f"{run.acknowledged} events were acknowledged, and {run.held.stored} are stored")
    if run.sends and run.held.in_topic + run.held.marked < run.acknowledged:
        sent = f"{run.held.in_topic} are in the topic and {run.held.marked} are marked to be sent"
        found.append(f"{run.acknowledged} events were acknowledged, and {sent}")
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
    """What a ratio of two contestants' rates must be at least."""

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
    """What a ratio must be at most."""

    ratio: str
    most: float


COLD_START = Ceiling("cold_start_ratio", 2.0)
"""Of the slowest function's start to that of a bare functions-framework."""


KAFKA_FROZEN = Ceiling("publish_p99_kafka_frozen", 1.5)
KAFKA_GONE = Ceiling("publish_p99_kafka_gone", 1.5)
"""Of publish's p99 while Kafka is away to that while it is there."""
SLOWER_KAFKA_GONE = Ceiling("publish_slower_kafka_gone", 1.25)
"""Of the time that publish takes for an event while Kafka is gone to that while it is there."""
CEILINGS = (COLD_START, KAFKA_FROZEN, KAFKA_GONE, SLOWER_KAFKA_GONE)


def p99_ratio(away: Sequence[Run], there: Sequence[Run]) -> float:
    """The median of the p99s of `away`, in those of `there`."""
    return round(median(run.load.p99_ms for run in away) / median(run.load.p99_ms for run in there), 3)


def slowdown(away: Sequence[Run], there: Sequence[Run]) -> float:
    """The median time for an event of `away`, in those of `there`."""
    return round(median(run.rate for run in there) / median(run.rate for run in away), 3)


def cold_start_ratio(seconds: Mapping[str, Sequence[float]], bare: str) -> float:
    """The longest median of all functions, in medians of `bare`."""
    medians = {name: median(taken) for name, taken in seconds.items()}
    return round(max(taken for name, taken in medians.items() if name != bare) / medians[bare], 3)


@dataclass(frozen=True)
class Figures:
    """The report: a rate for each contestant, the median of its runs, and the ratios that have bounds."""

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
    def of(cls, runs: Mapping[str, Sequence[Run]], ceilings: Mapping[Ceiling, float]) -> "Figures":
        """The figures of each contestant's runs, and what was measured for each ceiling."""
        rates = {name: median(run.rate for run in runs[name]) for name in RATES}
        ratios = {floor.ratio: round(rates[floor.of] / rates[floor.to], 3) for floor in FLOORS}
        most = {ceiling.ratio: measured for ceiling, measured in ceilings.items()}
        return cls(**{RATES[name]: round(rate, 1) for name, rate in rates.items()}, **ratios, **most)

    def as_json(self) -> dict[str, float]:
        """The figures by their names."""
        return asdict(self)

    def missed(self) -> list[Floor | Ceiling]:
        """The bounds that were not kept."""
        figures = self.as_json()
        floors = [floor for floor in FLOORS if figures[floor.ratio] < floor.least]
        return [*floors, *(ceiling for ceiling in CEILINGS if figures[ceiling.ratio] > ceiling.most)]


def spread(runs: Iterable[Run]) -> tuple[float, float]:
    """The slowest and the fastest rate."""
    rates = [run.rate for run in runs]
    return min(rates), max(rates)
