"""The requests of the demo: valid events in every mode, repeated events, and events to refuse. Pure."""

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dev.load.events import EventJson, EventRequest, batch, binary, new_order, structured

BINARY = 300
STRUCTURED = 300
BATCHES = 5
BATCH_SIZE = 100
TWICE = 50


@dataclass(frozen=True)
class Submission:
    """The events of a request, their encoding, and the expected result for each event."""

    events: Sequence[EventJson]
    encode: Callable[[Sequence[EventJson]], EventRequest]
    expected: str = "accepted"
    """`accepted`, `duplicate`, `rejected` or `conflict`."""


def orders(run: str) -> list[EventJson]:
    """Return the events of the demo, with markers from 0 on."""
    rng = random.Random(run)
    return [new_order(f"demo-{run}", marker, rng) for marker in range(BINARY + STRUCTURED + BATCHES * BATCH_SIZE)]


def first_submissions(events: Sequence[EventJson]) -> Iterator[Submission]:
    """Send every event once: single in binary mode, single in structured mode, and in batches."""
    yield from (Submission([event], binary) for event in events[:BINARY])
    yield from (Submission([event], structured) for event in events[BINARY : BINARY + STRUCTURED])
    for start in range(BINARY + STRUCTURED, len(events), BATCH_SIZE):
        yield Submission(events[start : start + BATCH_SIZE], batch)


def repeated_submissions(events: Sequence[EventJson]) -> Iterator[Submission]:
    """Send some events again, in another mode than before."""
    for position, event in enumerate(events[:: len(events) // TWICE][:TWICE]):
        again = structured if event["data"]["n"] < BINARY or position % 2 else binary
        yield Submission([event], again, expected="duplicate")


def refused_submissions(events: Sequence[EventJson]) -> Iterator[Submission]:
    """Send malformed events, and other data under the id of an accepted event."""
    order = {**events[0], "id": str(uuid.uuid4()), "data": {"n": -1}}
    headers, body = binary([order])

    def malformed(changed: dict[str, str], content: bytes = body) -> Submission:
        return Submission([order], lambda _: EventRequest(changed, content), "rejected")

    yield malformed({name: value for name, value in headers.items() if name != "ce-id"})
    yield malformed(headers | {"ce-specversion": "0.3"})
    yield malformed(headers | {"ce-source": "/has a space"})
    yield malformed(headers, b'{"n": -1')
    yield Submission([{**events[1], "data": {"n": -1}}], structured, "conflict")
