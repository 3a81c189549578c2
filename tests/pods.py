"""Pods' lives: the requests that ApiServerSource sends in each, in order, from `tests/fixtures/pods`.

They were put together after what Kubernetes 1.34 writes at each step; `tests/cluster` has real ones.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from functions.pod_events.identity import Identity
from functions.pod_events.lifecycle import lifecycle
from functions.pod_events.pod import Pod
from functions.pod_events.pod_state import PodStates
from functions.pod_events.watching import Watcher
from twofold.event.model import Event
from twofold.mongo.client import Database
from twofold.storage.dead_letters import DeadLetters
from twofold.write.publisher import Publisher

LIVES = Path(__file__).parent / "fixtures" / "pods"

IDENTITY = Identity(
    cluster="kubernetes",
    aggregate_keys=("twofold.dev/aggregate-id",),
    correlation_keys=("twofold.dev/correlation-id",),
    user_keys=("twofold.dev/user-id",),
)
"""The defaults of the settings."""


@dataclass(frozen=True)
class Sent:
    """One request of ApiServerSource."""

    headers: dict[str, str]
    pod: dict[str, Any]

    def request(self) -> tuple[dict[str, str], bytes]:
        """Its headers, with an id that was never sent before, as each has; and its body."""
        return self.headers | {"ce-id": str(uuid4())}, self.body

    @property
    def deleted(self) -> bool:
        """Whether it tells of the pod's deletion."""
        return self.headers["ce-type"].endswith(".delete")

    @property
    def uid(self) -> str:
        """The pod's."""
        return str(self.pod["metadata"]["uid"])

    @property
    def body(self) -> bytes:
        """As it is sent."""
        return json.dumps(self.pod).encode()

    def events(self, identity: Identity = IDENTITY) -> list[Event]:
        """The facts that this state shows."""
        if identity is IDENTITY:
            return self._events
        return lifecycle(Pod.of(self.pod), identity, deleted=self.deleted)

    @cached_property
    def _events(self) -> list[Event]:
        return lifecycle(Pod.of(self.pod), IDENTITY, deleted=self.deleted)


def watcher(publisher: Publisher, database: Database) -> Watcher:
    """What watches pods in every namespace, on that database."""
    seen, letters = PodStates(database), DeadLetters(database)
    return Watcher(publisher, seen, letters, IDENTITY, ignored_namespaces=(), clock=lambda: datetime.now(UTC))


def names() -> list[str]:
    """All lives, by name."""
    return sorted(path.stem for path in LIVES.glob("*.ndjson"))


@cache
def life(name: str) -> list[Sent]:
    """What was sent in that life."""
    return _sent((LIVES / f"{name}.ndjson").read_text())


def new_life(name: str) -> list[Sent]:
    """The same life of a pod that nobody has seen yet."""
    uid = life(name)[0].pod["metadata"]["uid"]
    return _sent((LIVES / f"{name}.ndjson").read_text().replace(uid, str(uuid4())))


def _sent(text: str) -> list[Sent]:
    return [Sent(line["headers"], line["body"]) for line in map(json.loads, text.splitlines())]


def first_observed(sent: Iterable[Sent]) -> dict[UUID, Event]:
    """Every fact as the first state that shows it says it."""
    found: dict[UUID, Event] = {}
    for state in sent:
        for event in state.events():
            found.setdefault(event.event_id, event)
    return found


def differing(one: Event, other: Event) -> set[str]:
    """The names of the fields that two tellings of one fact say differently."""
    fields = {"timestamp": (one.timestamp, other.timestamp), "aggregate_id": (one.aggregate_id, other.aggregate_id)}
    metadata = {*one.metadata_fields, *other.metadata_fields}
    fields |= {name: (one.metadata_fields.get(name), other.metadata_fields.get(name)) for name in metadata}
    payload = {*one.payload, *other.payload}
    fields |= {name: (one.payload.get(name), other.payload.get(name)) for name in payload}
    assert one.event_type == other.event_type
    return {name for name, (here, there) in fields.items() if here != there}
