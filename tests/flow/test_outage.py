"""An outage of Kafka: what was accepted meanwhile is in the log soon after the relay's first run behind it."""

from collections.abc import Iterator

import pytest

from dev.stack import Options, Stack
from tests.helpers import View, some_events, view

pytestmark = pytest.mark.guarantee("G1", "G7", "R2", "R9")

EVENTS, BATCH = 10_000, 500


@pytest.fixture(scope="module")
def own(broker_name: str) -> Iterator[View]:
    """A stack whose broker may be ended."""
    options = Options(broker=broker_name, settings={"RELAY_FIRST_LOOK_S": "0.1"})
    with Stack(options) as running, view(running) as seen:
        yield seen


@pytest.mark.slow
def test_10_000_events_that_were_accepted_without_kafka_are_in_the_log_within_a_minute(own: View) -> None:
    """Of the first run after its return; and none of them twice."""
    own.stack.broker.kill()
    events = some_events(EVENTS)
    for first in range(0, EVENTS, BATCH):
        assert own.publish_all(events[first : first + BATCH]).status_code == 202
    assert own.marked(events) == EVENTS
    own.stack.restart_broker()
    own.relay(due=events)
    assert own.arrive(events, within=60.0)
    assert own.database.event_store.count_documents({}) == EVENTS
    assert own.relayed(events)
    statement = own.relay()["statement"]
    assert (statement["pending"], statement["dead"], statement["conflicting"]) == (0, 0, 0)
