"""The lives of pods: the requests of an ApiServerSource for one pod, in order, from `tests/fixtures/pods`.

They are written by hand after the states of Kubernetes 1.34. `tests/cluster` has states of a real API server.
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
from functions.pod_events.watching import PodWatcher
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
"""The identity of the default settings."""


@dataclass(frozen=True)
class SourceRequest:
    """A request of an ApiServerSource: one state of a pod."""

    headers: dict[str, str]
    pod: dict[str, Any]

    def request(self) -> tuple[dict[str, str], bytes]:
        """Return headers and body. Every call makes a new `ce-id`, as an ApiServerSource does."""
        return self.headers | {"ce-id": str(uuid4())}, self.body

    @property
    def deleted(self) -> bool:
        """Return True if the request reports a deletion."""
        return self.headers["ce-type"].endswith(".delete")

    @property
    def uid(self) -> str:
        """The uid of the pod."""
        return str(self.pod["metadata"]["uid"])

    @property
    def body(self) -> bytes:
        """The pod as JSON."""
        return json.dumps(self.pod).encode()

    def events(self, identity: Identity = IDENTITY) -> list[Event]:
        """Return the events of the facts in this state."""
        if identity is IDENTITY:
            return self._events
        return lifecycle(Pod.of(self.pod), identity, deleted=self.deleted)

    @cached_property
    def _events(self) -> list[Event]:
        return lifecycle(Pod.of(self.pod), IDENTITY, deleted=self.deleted)


def pod_watcher(publisher: Publisher, database: Database) -> PodWatcher:
    """Return a watcher of the pods in every namespace."""
    states, dead_letters = PodStates(database), DeadLetters(database)
    return PodWatcher(publisher, states, dead_letters, IDENTITY, ignored_namespaces=(), clock=lambda: datetime.now(UTC))


def names() -> list[str]:
    """Return the names of all lives."""
    return sorted(path.stem for path in LIVES.glob("*.ndjson"))


@cache
def life(name: str) -> list[SourceRequest]:
    """Return the requests of a life."""
    return _requests((LIVES / f"{name}.ndjson").read_text())


def new_life(name: str) -> list[SourceRequest]:
    """Return the requests of a life for a pod with a new uid."""
    uid = life(name)[0].pod["metadata"]["uid"]
    return _requests((LIVES / f"{name}.ndjson").read_text().replace(uid, str(uuid4())))


def _requests(text: str) -> list[SourceRequest]:
    return [SourceRequest(line["headers"], line["body"]) for line in map(json.loads, text.splitlines())]


def first_observed(requests: Iterable[SourceRequest]) -> dict[UUID, Event]:
    """Return every fact of the requests, as in the first request with this fact."""
    found: dict[UUID, Event] = {}
    for request in requests:
        for event in request.events():
            found.setdefault(event.event_id, event)
    return found


def differing(first: Event, second: Event) -> set[str]:
    """Return the names of the fields with different values in two observations of one fact."""
    fields = {
        "timestamp": (first.timestamp, second.timestamp),
        "aggregate_id": (first.aggregate_id, second.aggregate_id),
    }
    metadata = {*first.metadata_fields, *second.metadata_fields}
    fields |= {name: (first.metadata_fields.get(name), second.metadata_fields.get(name)) for name in metadata}
    payload = {*first.payload, *second.payload}
    fields |= {name: (first.payload.get(name), second.payload.get(name)) for name in payload}
    assert first.event_type == second.event_type
    return {name for name, (here, there) in fields.items() if here != there}
