"""From the deliveries of an ApiServerSource to published facts. A delivery that is no pod becomes a dead letter."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Self

import orjson

from twofold.cloudevents.attributes import RawHeaders
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.errors import Invalid, Malformed, Rejected, TooLarge, unexpected
from twofold.event.model import Event
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.failed_delivery import DeadLetter
from twofold.write.decoding import in_decoding_thread, is_costly
from twofold.write.publisher import Publisher

from .identity import Identity
from .lifecycle import lifecycle
from .pod import Pod
from .pod_state import LastPodState, PodStates

logger = logging.getLogger(__name__)

RESOURCE_TYPES = {
    "dev.knative.apiserver.resource.add": False,
    "dev.knative.apiserver.resource.update": False,
    "dev.knative.apiserver.resource.delete": True,
}
"""The event types of an ApiServerSource in the mode Resource. The value is True if the event may report a deletion."""

MAX_POD_BYTES = 4 * 1024 * 1024
"""The largest delivery that is read as a pod. etcd takes 1.5 MiB of an object by default, and JSON needs more bytes."""

REFERENCE_PREFIX = "dev.knative.apiserver.ref."
"""The prefix of its event types in the mode Reference, which sends no objects."""

IGNORE = "twofold.dev/ignore"


class ReferenceMode(Invalid):
    """The error for an ApiServerSource in the mode Reference: its events hold names in place of pods."""

    def __init__(self) -> None:
        super().__init__(
            "this ApiServerSource sends references, which hold no pod: set `mode: Resource` in its spec", "type"
        )


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """A pod at one moment, with the events of the facts in this state."""

    pod: Pod
    events: list[Event]
    deletion: Event
    """The event of the pod's deletion, if no later state arrives."""
    deleted: bool
    facts_digest: bytes
    """A digest of the facts. States with equal facts have equal digests."""

    @classmethod
    def of(cls, pod: Pod, events: list[Event], deletion: Event, *, deleted: bool) -> Self:
        """Return the observed pod with the digest of its facts."""
        ids = sorted(event.event_id.bytes for event in events)
        return cls(pod, events, deletion, deleted, hashlib.sha256(b"".join(ids)).digest())

    def last_state(self) -> LastPodState:
        """Return the state for the collection `pod_state`."""
        meta, cluster = self.pod.metadata, self.deletion.payload["cluster"]
        return LastPodState(
            cluster, meta.uid, meta.namespace, meta.name, self.facts_digest, self.deletion, self.deleted
        )


class IgnoredPod(NamedTuple):
    """A pod without events, by its label, its annotation or its namespace."""

    uid: str


class PodWatcher:
    """Publishes the facts of observed pods. A process has one, in its event loop."""

    def __init__(
        self,
        publisher: Publisher,
        pod_states: PodStates,
        dead_letters: DeadLetters,
        identity: Identity,
        *,
        ignored_namespaces: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._publisher = publisher
        self._pod_states = pod_states
        self._dead_letters = dead_letters
        self._identity = identity
        self._ignored_namespaces = frozenset(ignored_namespaces)
        self._clock = clock

    async def handle(self, headers: RawHeaders, body: bytes) -> None:
        """Return when the facts of a delivery are durable in `events`, or when the delivery is a dead letter.

        Raises `Unavailable` if the delivery may not be durable: the source must send it again. Raises `ReferenceMode`.
        """
        event: IncomingEvent | None = None
        try:
            decode = partial(self._decode, headers, body)
            event, observed = await in_decoding_thread(decode) if is_costly(body) else decode()
            if isinstance(observed, Rejected):
                raise observed
            if isinstance(observed, IgnoredPod):
                await self.forget([observed])
            else:
                await self.publish([observed])
        except ReferenceMode as error:  # a log line for the operator: the source logs only the status
            logger.warning("422: %s", error.detail)
            raise
        except Rejected as reason:
            await self.keep(headers, body, reason, event)

    async def keep(
        self, headers: RawHeaders, body: bytes, reason: Rejected, event: IncomingEvent | None = None
    ) -> None:
        """Keep a rejected object as a dead letter.

        An equal object gives the same dead letter, although every delivery of it has another id.
        """
        delivered = DeliveredEvent(event.encoded.document) if event else None
        type_ = next((value.decode("latin-1") for name, value in headers if name == b"ce-type"), None)
        content = _canonical(body, reason) if type_ is None or type_ in RESOURCE_TYPES else None
        dead_letter = DeadLetter(headers, body, reason, None, None, delivered, sink="pod_events", content=content)
        await self._dead_letters.keep(dead_letter)

    async def publish(self, pods: Sequence[ObservedPod]) -> int:
        """Publish the new facts of different pods, and return the number of new facts.

        A pod with unchanged facts costs one read, shared by all `pods`. The state is saved after its facts are
        durable: a process that dies between these steps publishes the facts again, and they are duplicates.
        """
        if not pods:
            return 0
        known = await self._pod_states.facts_digests([observed.pod.metadata.uid for observed in pods])
        changed = [observed for observed in pods if known.get(observed.pod.metadata.uid) != observed.facts_digest]
        if not changed:
            return 0
        published = await self._publisher.publish_observed([event for observed in changed for event in observed.events])
        await self._pod_states.save([observed.last_state() for observed in changed])
        return published

    async def forget(self, pods: Sequence[IgnoredPod]) -> None:
        """Forget these pods: their deletion then gives no event."""
        if pods:
            await self._pod_states.forget([pod.uid for pod in pods])

    def observe(self, data: dict[str, Any], *, deleted: bool = False) -> ObservedPod | IgnoredPod:
        """Read the JSON object of a pod. Raises `Rejected` for an object that is no pod.

        `deleted` says that the source sent a deletion. A source also sends a deletion for a living pod that leaves its
        selector. A removed pod has no grace period left, so only such a pod counts as deleted. If this rule ever fails,
        the listing finds the missing pod. An unexpected error is the `Unexpected` of this pod alone.
        """
        try:
            return self._observe(data, deleted=deleted)
        except Rejected:
            raise
        except Exception as error:  # noqa: BLE001 - the same pod would raise it again in every listing
            raise unexpected(error, "a pod") from None

    def _observe(self, data: dict[str, Any], *, deleted: bool) -> ObservedPod | IgnoredPod:
        pod = Pod.of(data)
        meta = pod.metadata
        ignored = "true" in (meta.labels.get(IGNORE), meta.annotations.get(IGNORE))
        if ignored or meta.namespace in self._ignored_namespaces:
            return IgnoredPod(meta.uid)
        deleted = deleted and pod.is_removed
        events = lifecycle(pod, self._identity, deleted=True)
        deletion = next(event for event in events if event.event_type == "pod.deleted")
        if not deleted:
            events.remove(deletion)
        return ObservedPod.of(pod, events, deletion, deleted=deleted)

    def _decode(self, headers: RawHeaders, body: bytes) -> tuple[IncomingEvent, ObservedPod | IgnoredPod | Rejected]:
        """Return the event of a delivery, and its pod or the error of its pod. Raises `Rejected` without an event."""
        if len(body) > MAX_POD_BYTES:
            raise TooLarge(f"the delivery has {len(body)} bytes: a pod has at most {MAX_POD_BYTES}")
        event = _single(decode_http(headers, body, self._clock(), max_events=1))
        try:
            return event, self._observed_in(event.event)
        except Rejected as reason:
            return event, reason

    def _observed_in(self, event: Event) -> ObservedPod | IgnoredPod:
        if event.event_type.startswith(REFERENCE_PREFIX):
            raise ReferenceMode
        if event.event_type not in RESOURCE_TYPES:
            raise Invalid("is no event type of an ApiServerSource", "type")
        return self.observe(event.payload, deleted=RESOURCE_TYPES[event.event_type])


def _single(decoded: IncomingEvent | Iterator[IncomingEvent | Rejected]) -> IncomingEvent:
    if not isinstance(decoded, IncomingEvent):
        raise Malformed("an ApiServerSource sends no batches")
    return decoded


def _canonical(body: bytes, reason: Rejected) -> bytes:
    """Return the JSON object in one form: a delivery and a list write the same object with different white space.

    A body that was too large to be read stays as it is.
    """
    if isinstance(reason, TooLarge):
        return body
    try:
        return orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return body
