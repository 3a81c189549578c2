"""How much memory the relay takes for a backlog of the largest events."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.process.child import wait_until
from dev.stack import Options, Stack
from dev.stack.functions import FunctionProcess
from tests.helpers import View, some_events, view

EVENTS = 200
SIZE = 900_000
BOUND_KIB = 256 * 1024
"""Half of what `knative/base/relay.yaml` gives it."""


@pytest.fixture
def flow(broker_name: str) -> Iterator[View]:
    """A stack with a relay alone, that nothing wakes."""
    options = Options(broker=broker_name, with_functions=("relay",))
    with Stack(options) as stack, view(stack) as seen:
        yield seen


def peak_kib(function: FunctionProcess) -> int:
    """The most memory that any of its processes had resident, ever: `VmHWM` of proc(5)."""
    lines = [line for pid in function.worker_pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@pytest.mark.guarantee("G1", "R9")
@pytest.mark.slow
def test_a_batch_of_the_largest_events_is_sent_in_bounded_memory(flow: View) -> None:
    """Killed for its memory before it notes a try, a relay would begin with the same batch again, for ever."""
    events = some_events(EVENTS, payload={"text": "x" * SIZE})
    for event in events:
        flow.accept(event)
    # Apache Kafka may take a while until it has a coordinator for the group; nothing is sent before.
    assert wait_until(lambda: bool(flow.relay(due=events)["resent"] == EVENTS), within=60.0, every=1.0)
    assert peak_kib(flow.stack.functions["relay"]) < BOUND_KIB
