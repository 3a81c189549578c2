"""From one state of a pod to the events of all facts in that state. Pure: an equal state gives equal events.

An ApiServerSource can lose any state of a pod, repeat it, or send states out of order. So no fact is the difference
between two states: every state is read for all its facts. The id of a fact is made of the pod's uid and the fact, so
the same fact has the same id in every state.
"""

from collections.abc import Iterator
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from twofold.event.model import Event
from twofold.event.reserved import POD_SOURCE

from . import facts, times
from .causes import CRASH_LOOP, ORDINARY_WAITS, container_cause, failure_of, has_succeeded, signal_of, waiting_cause
from .identity import Identity, given_id
from .pod import KnownContainer, Pod
from .pod_parts import ContainerStatus, Terminated

_STAGES = (
    *("created", "unschedulable", "scheduled"),
    *("init waiting", "init ended", "init waiting again", "initialized"),
    *("waiting", "running", "ended", "waiting again"),
    *("succeeded", "failed", "terminating", "deleted"),
)
"""The stages of a pod's life, in their order."""


class _TimedFact(NamedTuple):
    """A fact with its time, and with a key for the facts of this pod."""

    key: tuple[str, ...]
    time: datetime
    payload: facts.Fact

    @property
    def place(self) -> tuple[datetime, int]:
        """The place among the facts of a state. Kubernetes' times are whole seconds, so many facts have equal times."""
        return self.time, _STAGES.index(_stage(self.payload))


def _stage(fact: facts.Fact) -> str:
    if not isinstance(fact, facts.ContainerFact):
        return fact.event_type.removeprefix("pod.")
    waits = isinstance(fact, facts.ContainerWaiting)
    stage = ("waiting again" if fact.restart else "waiting") if waits else "ended"
    # The pod is initialized when the init containers have ended and the sidecars run.
    is_init = fact.container_kind == "init" or (waits and fact.container_kind == "sidecar")
    return f"init {stage}" if is_init else stage


def lifecycle(pod: Pod, identity: Identity, *, deleted: bool = False) -> list[Event]:
    """Return the events of all facts in this state of `pod`, in the order of time, and at equal times in that of life.

    The publisher keeps this order in the events' `order`.

    `deleted` adds `pod.deleted`: the pod has left the API server. Raises `Invalid` if a name of the pod is no valid
    attribute of an event.
    """
    found = sorted(_facts(pod, identity.cluster, deleted=deleted), key=attrgetter("place"))
    return [_event(pod, identity, fact) for fact in found]


def reconciled_deletion(deletion: Event, confirmed_at: datetime) -> Event:
    """Return `pod.deleted` with the time at which the pod's absence was confirmed."""
    payload = deletion.payload | {"observed": "reconciled"}
    return deletion.model_copy(update={"timestamp": confirmed_at, "payload": payload})


def _event(pod: Pod, identity: Identity, fact: _TimedFact) -> Event:
    given = given_id(pod.metadata.uid, *fact.key)
    return Event.of(
        id=given,
        event_type=fact.payload.event_type,
        timestamp=fact.time,
        aggregate_id=identity.aggregate_id(pod),
        metadata={"service_name": POD_SOURCE, **identity.metadata(pod)},
        payload=fact.payload.model_dump(mode="json", exclude_none=True),
    )


def _facts(pod: Pod, cluster: str, *, deleted: bool) -> Iterator[_TimedFact]:
    names = {
        "cluster": cluster,
        "namespace": pod.metadata.namespace,
        "pod": pod.metadata.name,
        "pod_uid": pod.metadata.uid,
    }
    observed = names | _observed(pod)
    of_pod = observed | {"images": _images(pod)}
    yield _created(pod, names)
    yield from _start(pod, of_pod)
    for container in pod.containers():
        yield from _of_container(pod, container, observed)
    yield from _end(pod, of_pod)
    yield from _deletion(pod, of_pod, deleted=deleted)


def _observed(pod: Pod) -> dict[str, Any]:
    labels, owner = pod.metadata.labels, pod.owner
    return {
        "node": pod.spec.node_name,
        "owner": facts.OwnerName(api_version=owner.api_version, kind=owner.kind, name=owner.name) if owner else None,
        "knative_service": labels.get("serving.knative.dev/service"),
        "knative_revision": labels.get("serving.knative.dev/revision"),
    }


def _images(pod: Pod) -> dict[str, str]:
    containers = [*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers]
    return {container.name: container.image for container in containers if container.image}


def _created(pod: Pod, names: dict[str, Any]) -> _TimedFact:
    spec = pod.spec
    payload = facts.Created(
        **names,
        service_account=spec.service_account_name,
        restart_policy=spec.restart_policy,
        containers=[container.name for container in spec.containers],
        init_containers=[container.name for container in spec.init_containers],
    )
    return _TimedFact(("created",), times.created_at(pod), payload)


def _start(pod: Pod, of_pod: dict[str, Any]) -> Iterator[_TimedFact]:
    """Yield the facts from the scheduler to Running."""
    unscheduled = pod.condition("PodScheduled", "False")
    if unscheduled and unscheduled.reason == "Unschedulable":
        time = unscheduled.last_transition_time or times.created_at(pod)
        payload = facts.Unschedulable(**of_pod, message=unscheduled.message or None)
        yield _TimedFact(("unschedulable",), time, payload)
    if scheduled := times.scheduled_at(pod):
        yield _TimedFact(("scheduled",), scheduled, facts.Scheduled(**of_pod))
    if initialized := pod.condition("Initialized"):
        time = initialized.last_transition_time or times.begun_at(pod)
        yield _TimedFact(("initialized",), time, facts.Initialized(**of_pod))
    if running := times.running_since(pod):
        yield _TimedFact(("running",), running, facts.Running(**of_pod))


def _end(pod: Pod, of_pod: dict[str, Any]) -> Iterator[_TimedFact]:
    """Yield the success or the failure of the pod."""
    if has_succeeded(pod):
        yield _TimedFact(("succeeded",), times.succeeded_at(pod), facts.Succeeded(**of_pod))
    elif pod.status.phase == "Failed":
        failure = failure_of(pod)
        end = failure.end
        payload = facts.Failed(
            **of_pod,
            cause=failure.cause,
            container=failure.container,
            exit_code=end.exit_code if end else None,
            signal=signal_of(end) if end else None,
            reason=failure.reason or None,
            message=failure.message or None,
        )
        yield _TimedFact(("failed",), times.failed_at(pod), payload)


def _deletion(pod: Pod, of_pod: dict[str, Any], *, deleted: bool) -> Iterator[_TimedFact]:
    """Yield the request for the deletion, and the deletion."""
    if requested := pod.deletion_requested_at:
        grace = pod.metadata.deletion_grace_period_seconds or 0
        yield _TimedFact(("terminating",), requested, facts.Terminating(**of_pod, grace_period_seconds=grace))
    if deleted:
        payload = facts.Deleted(**of_pod, observed="watched", phase=pod.status.phase or None)
        yield _TimedFact(("deleted",), times.deleted_at(pod), payload)


def _of_container(pod: Pod, container: KnownContainer, observed: dict[str, Any]) -> Iterator[_TimedFact]:
    """Yield the facts of one container: its present wait, and the ends in its status."""
    kind, status, image = container
    of_container = observed | {
        "container": status.name,
        "container_kind": kind,
        "image": image or status.image or None,
        "image_id": status.image_id or None,
    }
    waiting = status.state.waiting
    if waiting and waiting.reason not in ORDINARY_WAITS:
        payload = facts.ContainerWaiting(
            **of_container,
            restart=status.restart_count,
            cause=waiting_cause(waiting.reason),
            reason=waiting.reason,
            message=waiting.message or None,
        )
        key = ("container_waiting", status.name, waiting.reason, str(status.restart_count))
        yield _TimedFact(key, times.waiting_since(pod, container), payload)
    for end, restart in _ends(status):
        yield _terminated(pod, of_container, end, restart)


def _ends(status: ContainerStatus) -> Iterator[tuple[Terminated, int]]:
    """Yield the ends in a container's status, with the number of restarts before the run.

    A lost container can appear twice. The kubelet writes its end into `lastState` and counts the next run. If the pod
    then fails, the kubelet writes the same end into `state`, although no container of the next run was made.
    """
    end, last = status.state.terminated, status.last_state.terminated
    if last:
        yield last, _restart_of_last(status, last)
    repeated = end and last and not status.container_id and end.is_lost and last.is_lost
    if end and not repeated:
        yield end, status.restart_count


def _restart_of_last(status: ContainerStatus, end: Terminated) -> int:
    """Return the number of restarts before the run in `lastState`.

    `restartCount` belongs to the newest run. Kubernetes counts a run when its container is made, so a container that
    cannot be started still has the count of the run in `lastState`. After a lost container, which has no id, the next
    run counts at once.
    """
    waiting = status.state.waiting
    if waiting and waiting.reason not in ORDINARY_WAITS and (end.container_id or waiting.reason == CRASH_LOOP):
        return status.restart_count
    return max(status.restart_count - 1, 0)


def _terminated(pod: Pod, of_container: dict[str, Any], end: Terminated, restart: int) -> _TimedFact:
    payload = facts.ContainerTerminated(
        **of_container,
        restart=restart,
        cause=container_cause(end),
        exit_code=end.exit_code,
        signal=signal_of(end),
        reason=end.reason or None,
        container_id=end.container_id,
        started_at=end.started_at,
        finished_at=end.finished_at,
    )
    run = end.container_id or str(restart)
    time = end.finished_at or times.stopped_at(pod)
    return _TimedFact(("container_terminated", of_container["container"], run), time, payload)
