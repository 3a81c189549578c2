"""The metrics change at the right events, on real servers. The exporters are in memory."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import grimp
import pytest

from dev.paths import ROOT
from tests.helpers import accept, altered, an_event, delivered, failing, log, plain_record, some_events
from tests.told import Told
from twofold.cloudevents.decode_http import IncomingEvent
from twofold.errors import Malformed, Unavailable
from twofold.kafka.lag import Backlog
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.observability import metrics
from twofold.observability.metrics import (
    ACCEPTED,
    COMMIT_SIZE,
    COMMIT_TIME,
    COMPLETENESS_DELAY,
    CONSUMER_LAG,
    DEAD_LETTERS,
    DUPLICATES,
    LOG_REGRESSED,
    METRICS,
    OLDEST_PENDING,
    PENDING,
    REJECTED,
    RELAYED,
    STORED,
    UNRESOLVED,
)
from twofold.settings import Settings
from twofold.write.publisher import Publisher, open_publisher
from twofold.write.relay import Relay
from twofold.write.store import Store

HOP = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told.here()
    yield made
    made.telemetry.close()


@pytest.fixture
async def publisher(settings: Settings, told: Told) -> AsyncIterator[Publisher]:
    async with open_publisher(settings, "metrics", told.telemetry) as opened:
        yield opened


@pytest.fixture
def store(database: Database, settings: Settings, told: Told) -> Store:
    return Store(database, settings, lambda: datetime.now(UTC), telemetry=told.telemetry)


async def lagging() -> Backlog:
    """Return the backlog of a consumer group with 3 waiting records in a partition."""
    return Backlog({0: 3, 1: 0}, {})


@pytest.fixture
def relay(database: Database, sender: Sender, settings: Settings, told: Told) -> Relay:
    first_look = settings.model_copy(update={"relay_first_look_s": -2.0})
    return Relay(database, sender, first_look, lambda: 0.0, lagging, telemetry=told.telemetry)


@pytest.mark.guarantee("G1")
async def test_a_new_event_counts_as_accepted(publisher: Publisher, told: Told) -> None:
    await publisher.publish([IncomingEvent.of(event) for event in some_events(3)])
    assert told.value(ACCEPTED) == 3
    assert told.value(DUPLICATES) == told.value(REJECTED) == 0


@pytest.mark.guarantee("G2")
async def test_a_stored_event_counts_as_a_duplicate(publisher: Publisher, told: Told) -> None:
    event = an_event()
    for _ in range(3):
        await publisher.publish_base_event(event)
    assert told.value(ACCEPTED) == 1
    assert told.value(DUPLICATES, {"db.collection.name": "events"}) == 2


@pytest.mark.guarantee("R3", "R10")
async def test_a_rejected_event_counts_by_its_reason(publisher: Publisher, told: Told) -> None:
    event = an_event()
    await publisher.publish_base_event(event)
    await publisher.publish(
        [
            Malformed("no JSON"),
            IncomingEvent.of(altered(event)),
            IncomingEvent.of(an_event(payload={"large": "x" * 1_100_000})),
            IncomingEvent.of(an_event(), replay_id="r1"),
        ]
    )
    reasons = ("malformed", "identity-conflict", "too-large", "unknown-replay")
    assert [told.value(REJECTED, {"error.type": reason}) for reason in reasons] == [1, 1, 1, 1]
    assert told.value(ACCEPTED) == 1


@pytest.mark.guarantee("G1")
async def test_a_write_records_size_time_and_failure(publisher: Publisher, database: Database, told: Told) -> None:
    """A failed write is no rejection: the events can be sent again."""
    await publisher.publish([IncomingEvent.of(event) for event in some_events(3)])
    async with failing(database, "metrics", errorCode=8):
        with pytest.raises(Unavailable):
            await publisher.publish_base_event(an_event())
    assert told.value(COMMIT_SIZE, {"db.collection.name": "events"}) == 2
    assert told.value(COMMIT_TIME, {"db.collection.name": "events"}) == 2
    assert told.value(COMMIT_TIME, {"error.type": "unavailable"}) == 1
    assert told.value(REJECTED) == 0


@pytest.mark.guarantee("G2", "G4")
async def test_deliveries_count_as_stored_duplicate_or_dead_letter(store: Store, told: Told) -> None:
    event = an_event()
    for one in (event, event, altered(event), an_event()):
        await store.take(*delivered(one))
    await store.take(*plain_record(b"no event"))
    assert told.value(STORED) == 2
    assert told.value(DUPLICATES, {"db.collection.name": "event_store"}) == 1
    assert told.value(DEAD_LETTERS, {"error.type": "identity-conflict"}) == 1
    assert told.value(DEAD_LETTERS, {"error.type": "malformed"}) == 1
    assert told.value(COMMIT_SIZE, {"db.collection.name": "event_store"}) == 4
    became = [dict(span.attributes or {}).get("error.type") for span in told.spans]
    assert became == [None, None, "identity-conflict", None, "malformed"]


@pytest.mark.guarantee("G10")
async def test_a_run_of_the_relay_records_its_decisions_and_its_checkpoint(
    relay: Relay, database: Database, told: Told
) -> None:
    logged, conflicting, pending = some_events(3)
    await accept(database, logged, conflicting, pending)
    await log(database, logged, altered(conflicting))
    await relay.run()
    outcomes = ("confirmed", "conflicting", "resent", "held", "dead", "unreadable", "unsent")
    assert [told.value(RELAYED, {"twofold.outcome": outcome}) for outcome in outcomes] == [1, 1, 1, 0, 0, 0, 0]
    assert told.value(PENDING) == 1
    assert told.value(OLDEST_PENDING) > 0
    assert told.value(UNRESOLVED, {"twofold.state": "conflicting"}) == 1
    assert told.value(COMPLETENESS_DELAY) > 0
    assert told.value(CONSUMER_LAG, {"messaging.destination.partition.id": "0"}) == 3
    assert told.value(LOG_REGRESSED) == 0


@pytest.mark.guarantee("G10")
async def test_a_regressed_log_is_recorded(relay: Relay, database: Database, told: Told) -> None:
    await log(database, an_event())
    await relay.run()
    await database["event_store"].delete_many({})  # a backup was restored
    await relay.run()
    assert told.value(LOG_REGRESSED) == 1


@pytest.mark.guarantee("R5")
async def test_without_tracing_an_event_takes_the_trace_of_its_request(settings: Settings, database: Database) -> None:
    """An event with a trace of its own keeps it."""
    bare, own = an_event(), an_event(metadata={"service_name": "/shop", "traceparent": HOP.replace("b7", "c8")})
    async with open_publisher(settings) as publisher:
        await publisher.publish([IncomingEvent.of(event)._replace(traceparent=HOP) for event in (bare, own)])
    stored = [await database["events"].find_one({"_id": event.event_id}) for event in (bare, own)]
    assert [document and document["metadata"]["traceparent"] for document in stored] == [HOP, own.metadata.traceparent]
    assert stored[0] is not None
    assert stored[0]["digest"] == bare.digest


@pytest.mark.dev
def test_the_operators_page_explains_every_metric() -> None:
    """The table has name, kind and unit."""
    rows = [row[:3] for row in explained()]
    assert sorted(rows) == sorted((metric.name, metric.kind, metric.unit) for metric in METRICS)


def explained() -> list[tuple[str, str, str, str]]:
    """Return name, kind, unit and origin of every metric in the operators' page."""
    page = (ROOT / "docs" / "operations.md").read_text()
    row = r"^\| `([a-z_.]+)` \| (counter|histogram|gauge) \| `([^`]+)` \| ([^|]+) \|"
    return re.findall(row, page, re.MULTILINE)


IDLE = {
    ("twofold.events.stored", "dead_letters"),
    ("twofold.events.duplicates", "dead_letters"),
    ("twofold.events.rejected", "pod_events"),
}
"""Functions with the code of a metric, and without an event to count."""


@pytest.mark.dev
def test_the_operators_page_names_the_functions_of_every_metric() -> None:
    """A function with the code of a metric has nothing to count in a few cases."""
    origins = {name: set(re.findall(r"`([a-z_]+)`", origin)) for name, _, _, origin in explained()}
    imports = grimp.build_graph("twofold", "functions")
    functions = [main.parent.name for main in ROOT.glob("functions/*/main.py")]
    compared = 0
    for metric, modules in counted_in().items():
        ship = {
            function
            for function in functions
            for module in modules
            if imports.find_shortest_chain(f"functions.{function}.main", module)
        }
        named = origins[metric] or set(functions)
        assert named == {function for function in ship if (metric, function) not in IDLE}, metric
        compared += 1
    assert compared >= len(METRICS) - 2, "the metrics of a group commit are recorded through an argument"


def counted_in() -> dict[str, set[str]]:
    """Return the modules that use the constant of a metric, by the name of the metric."""
    found: dict[str, set[str]] = {}
    constants = {name: value for name, value in vars(metrics).items() if value in METRICS}
    for file in (ROOT / "shared" / "twofold").rglob("*.py"):
        if file.parent.name != "observability":
            for name, metric in constants.items():
                if re.search(rf"\bmetrics\b(?s:.*)\b{name}\b", file.read_text()):
                    found.setdefault(metric.name, set()).add(
                        ".".join(file.relative_to(ROOT / "shared").with_suffix("").parts)
                    )
    return found
