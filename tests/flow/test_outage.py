"""An outage of Kafka: the accepted events are in the log soon after the first run of the relay."""

import time
from collections.abc import Iterator

import pytest

from dev.process.child import wait_until
from dev.stack import Options, Stack
from tests.helpers import View, some_events, view

pytestmark = pytest.mark.guarantee("G1", "G7", "R2", "R9")

EVENTS, BATCH = 10_000, 500
SEND_TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def own(broker_name: str) -> Iterator[View]:
    """Start a stack with a broker for this test. Its `publish` soon leaves unsent events to the relay."""
    options = Options(
        broker=broker_name,
        settings={"RELAY_FIRST_LOOK_S": "0.1"},
        function_settings={"publish": {"SEND_TIMEOUT_S": f"{SEND_TIMEOUT_S}"}},
    )
    with Stack(options) as running, view(running) as seen:
        yield seen


@pytest.mark.slow
def test_10_000_events_accepted_without_kafka_are_in_the_log_within_a_minute(own: View) -> None:
    """The minute starts with the first run after the return of Kafka. No event is doubled."""
    own.stack.broker.kill()
    events = some_events(EVENTS)
    for first in range(0, EVENTS, BATCH):
        assert own.publish_all(events[first : first + BATCH]).status_code == 202
    assert own.outbox_entries(events) == EVENTS
    time.sleep(SEND_TIMEOUT_S + 1)
    own.stack.restart_broker()
    # Apache Kafka needs a while for a coordinator of the group. The relay sends no event before.
    assert wait_until(lambda: bool(own.relay(due=events)["resent"] == EVENTS), within=60.0, every=1.0)
    assert own.arrive(events, within=60.0)
    assert own.database.event_store.count_documents({}) == EVENTS
    assert own.relayed(events)
    checkpoint = own.relay()["checkpoint"]
    assert (checkpoint["pending"], checkpoint["dead"], checkpoint["conflicting"]) == (0, 0, 0)
