"""What becomes of a pod's state: its facts, published once; and of what an ApiServerSource sends that is no pod."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import Invalid, Malformed, Rejected
from twofold.event.model import Event
from twofold.storage.dead_letters import DeadLetter, DeadLetters
from twofold.write.publisher import Publisher

from .identity import Identity
from .lifecycle import lifecycle
from .pod import Pod
from .pod_state import LastPodState, PodStates

logger = logging.getLogger(__name__)

STATES = {
    "dev.knative.apiserver.resource.add": False,
    "dev.knative.apiserver.resource.update": False,
    "dev.knative.apiserver.resource.delete": True,
}
"""The types that an ApiServerSource sends in Resource mode, and whether each may tell of a deletion."""

REFERENCES = "dev.knative.apiserver.ref."
"""What its types begin with in Reference mode, where it sends no objects."""

IGNORE = "twofold.dev/ignore"


class ReferenceMode(Invalid):
    """The source sends names in place of pods: nobody can make events of these, now or later."""

    def __init__(self) -> None:
        super().__init__(
            "this ApiServerSource sends references, which hold no pod: set `mode: Resource` in its spec", "type"
        )


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod at one moment, and the facts that show then."""

    pod: Pod
    events: list[Event]
    deletion: Event
    """The event of its deletion, if that is all that comes."""
    deleted: bool

    @property
    def facts(self) -> bytes:
        """Equal for states that show the same facts."""
        ids = sorted(event.event_id.bytes for event in self.events)
        return hashlib.sha256(b"".join(ids)).digest()

    def seen(self) -> LastPodState:
        """What is remembered of it."""
        meta, cluster = self.pod.metadata, self.deletion.payload["cluster"]
        return LastPodState(cluster, meta.uid, meta.namespace, meta.name, self.facts, self.deletion, self.deleted)


class Ignored(NamedTuple):
    """A pod that is told nothing of."""

    uid: str


class Watcher:
    """Publishes what pods' states show. One per process and event loop."""

    def __init__(
        self,
        publisher: Publisher,
        seen: PodStates,
        letters: DeadLetters,
        identity: Identity,
        *,
        ignored_namespaces: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._publisher = publisher
        self._seen = seen
        self._letters = letters
        self._identity = identity
        self._ignored_namespaces = frozenset(ignored_namespaces)
        self._clock = clock

    async def take(self, headers: RawHeaders, body: bytes) -> None:
        """Return once the delivery's facts are durable in `events`, or it is among the dead letters.

        Raises `Unavailable` when it is not known to be durable: deliver it again. Raises `ReferenceMode`.
        """
        received: IncomingEvent | None = None
        try:
            received = _one(decode_http(headers, body, self._clock(), max_events=1))
            state = self._state_in(received.event)
            if isinstance(state, Ignored):
                await self.forget([state])
            else:
                await self.observe([state])
        except ReferenceMode as error:  # for who configures the source: it logs no more than the status
            logger.warning("422: %s", error.detail)
            raise
        except Rejected as reason:
            await self.keep(headers, body, reason, received)

    async def keep(
        self, headers: RawHeaders, body: bytes, reason: Rejected, received: IncomingEvent | None = None
    ) -> None:
        """Make what is no pod a dead letter: one for each object, which comes with a new id each time, or is listed."""
        delivered = DeliveredEvent(received.encoded.document) if received else None
        type_ = next((value.decode("latin-1") for name, value in headers if name == b"ce-type"), None)
        content = _as_said(body) if type_ is None or type_ in STATES else None
        letter = DeadLetter(headers, body, reason, None, None, delivered, sink="pod_events", content=content)
        await self._letters.keep(letter)

    async def observe(self, states: Sequence[PodState]) -> int:
        """Publish the facts of `states`, of different pods, that are not known yet. Returns how many there were.

        A pod with the same facts as when it was seen last costs one read, together with the others. What was seen is
        noted after its facts are durable: whoever dies in between publishes them again, and nothing comes of it.
        """
        if not states:
            return 0
        known = await self._seen.facts([state.pod.metadata.uid for state in states])
        changed = [state for state in states if known.get(state.pod.metadata.uid) != state.facts]
        if not changed:
            return 0
        published = await self._publisher.publish_observed([event for state in changed for event in state.events])
        await self._seen.note([state.seen() for state in changed])
        return published

    async def forget(self, pods: Sequence[Ignored]) -> None:
        """Remember these pods no more, so that nobody looks for them when they go, and tells of that."""
        if pods:
            await self._seen.forget([pod.uid for pod in pods])

    def state_of(self, data: dict[str, Any], *, deleted: bool = False) -> PodState | Ignored:
        """The state that a pod's JSON object tells of, or that it is to be ignored. Raises `Rejected`.

        `deleted` says that it was sent as deleted. So is a pod that leaves the source's selector, though it lives; one
        that is really removed has no grace left. Should that ever not hold, the listing finds that the pod is gone.
        """
        pod = Pod.of(data)
        meta = pod.metadata
        ignored = "true" in (meta.labels.get(IGNORE), meta.annotations.get(IGNORE))
        if ignored or meta.namespace in self._ignored_namespaces:
            return Ignored(meta.uid)
        deleted = deleted and pod.is_removed
        events = lifecycle(pod, self._identity, deleted=True)
        deletion = next(event for event in events if event.event_type == "pod.deleted")
        if not deleted:
            events.remove(deletion)
        return PodState(pod, events, deletion, deleted)

    def _state_in(self, event: Event) -> PodState | Ignored:
        if event.event_type.startswith(REFERENCES):
            raise ReferenceMode
        if event.event_type not in STATES:
            raise Invalid("is none that an ApiServerSource sends of pods", "type")
        return self.state_of(event.payload, deleted=STATES[event.event_type])


def _one(received: IncomingEvent | Iterator[IncomingEvent | Rejected]) -> IncomingEvent:
    if not isinstance(received, IncomingEvent):
        raise Malformed("an ApiServerSource sends no batches")
    return received


def _as_said(body: bytes) -> bytes:
    """The object in one form, however it was written: what is sent and what is listed differ in their white space."""
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return body
