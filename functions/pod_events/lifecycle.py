"""All facts of a pod's life that one of its states shows, as events. Pure: the same state gives the same events.

Each fact's id is made of the pod's uid and the fact, never of the moment, so that it is the same from every state that
shows it. Each time is read from the pod; where Kubernetes gives none, from what is nearest, as said at each fact.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from twofold.event.model import Event
from twofold.event.reserved import POD_SOURCE

from . import facts
from .causes import CRASH_LOOP, ORDINARY_WAITS, container_cause, failure_of, signal_of, waiting_cause
from .identity import Identity, fact_id, given_id
from .pod import ContainerStatus, KnownContainer, Pod, Terminated

FINISHED = frozenset({"Succeeded", "Failed"})


class _Fact(NamedTuple):
    """A fact: what tells it from the pod's others, its time, and its payload."""

    key: tuple[str, ...]
    time: datetime
    payload: facts.Fact


def lifecycle(pod: Pod, identity: Identity, *, deleted: bool = False) -> list[Event]:
    """The events of all facts that `pod`, as it is now or was when it was `deleted`, implies, by time.

    Raises `Invalid` for a pod whose names no event can carry.
    """
    found = sorted(_facts(pod, identity.cluster, deleted=deleted), key=lambda fact: fact.time)
    return [_event(pod, identity, fact) for fact in found]


def gone(last: Event, confirmed_at: datetime) -> Event:
    """`pod.deleted` of a pod whose absence was confirmed, from the one that its last state would have made."""
    return last.model_copy(update={"timestamp": confirmed_at, "payload": last.payload | {"observed": "reconciled"}})


def _event(pod: Pod, identity: Identity, fact: _Fact) -> Event:
    given = given_id(pod.metadata.uid, *fact.key)
    return Event.of(
        event_id=fact_id(given),
        event_type=fact.payload.event_type,
        timestamp=fact.time,
        aggregate_id=identity.aggregate_id(pod),
        metadata={"service_name": POD_SOURCE, "source_event_id": given, **identity.metadata(pod)},
        payload=fact.payload.model_dump(mode="json", exclude_none=True),
    )


def _facts(pod: Pod, cluster: str, *, deleted: bool) -> Iterator[_Fact]:
    which = {
        "cluster": cluster,
        "namespace": pod.metadata.namespace,
        "pod": pod.metadata.name,
        "pod_uid": pod.metadata.uid,
    }
    observed = which | _observed(pod)
    of_pod = observed | {"images": _images(pod)}
    yield _created(pod, which)
    yield from _beginning(pod, of_pod)
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


def _created(pod: Pod, which: dict[str, Any]) -> _Fact:
    spec = pod.spec
    payload = facts.Created(
        **which,
        service_account=spec.service_account_name,
        restart_policy=spec.restart_policy,
        containers=[container.name for container in spec.containers],
        init_containers=[container.name for container in spec.init_containers],
    )
    return _Fact(("created",), pod.metadata.creation_timestamp, payload)


def _beginning(pod: Pod, about: dict[str, Any]) -> Iterator[_Fact]:
    """How the pod came to run."""
    unscheduled = pod.condition("PodScheduled", "False")
    if unscheduled and unscheduled.reason == "Unschedulable":
        at = unscheduled.last_transition_time or pod.metadata.creation_timestamp
        yield _Fact(("unschedulable",), at, facts.Unschedulable(**about, message=unscheduled.message or None))
    if scheduled := _scheduled_at(pod):
        yield _Fact(("scheduled",), scheduled, facts.Scheduled(**about))
    if initialized := pod.condition("Initialized"):
        at = initialized.last_transition_time or _begun_at(pod)
        yield _Fact(("initialized",), at, facts.Initialized(**about))
    if _has_run(pod):
        yield _Fact(("running",), _first_start(pod) or _begun_at(pod), facts.Running(**about))


def _end(pod: Pod, about: dict[str, Any]) -> Iterator[_Fact]:
    """How the pod ended by itself, or by what was done to it."""
    if pod.status.phase == "Succeeded":
        yield _Fact(("succeeded",), _last_end(pod) or _stopped_at(pod), facts.Succeeded(**about))
    if pod.status.phase == "Failed":
        why = failure_of(pod)
        payload = facts.Failed(
            **about,
            cause=why.cause,
            container=why.container,
            exit_code=why.end.exit_code if why.end else None,
            signal=signal_of(why.end) if why.end else None,
            reason=pod.status.reason or (why.end.reason if why.end else None) or None,
            message=pod.status.message or None,
        )
        yield _Fact(("failed",), _failed_at(pod), payload)


def _deletion(pod: Pod, about: dict[str, Any], *, deleted: bool) -> Iterator[_Fact]:
    """How the pod left the API server."""
    if asked := pod.asked_to_end_at:
        grace = pod.metadata.deletion_grace_period_seconds or 0
        yield _Fact(("terminating",), asked, facts.Terminating(**about, grace_period_seconds=grace))
    if deleted:
        payload = facts.Deleted(**about, observed="watched", phase=pod.status.phase or None)
        yield _Fact(("deleted",), _deleted_at(pod), payload)


def _of_container(pod: Pod, container: KnownContainer, observed: dict[str, Any]) -> Iterator[_Fact]:
    """The facts of one container: what it waits for, and the ends that are still to be seen."""
    kind, status, image = container
    about = observed | {
        "container": status.name,
        "container_kind": kind,
        "image": image or status.image or None,
        "image_id": status.image_id or None,
    }
    waiting = status.state.waiting
    if waiting and waiting.reason not in ORDINARY_WAITS:
        payload = facts.ContainerWaiting(
            **about,
            restart=status.restart_count,
            cause=waiting_cause(waiting.reason),
            reason=waiting.reason,
            message=waiting.message or None,
        )
        key = ("container_waiting", status.name, waiting.reason, str(status.restart_count))
        yield _Fact(key, _waiting_since(pod, container), payload)
    for end, restart in _ends(status):
        yield _terminated(pod, about, end, restart)


def _ends(status: ContainerStatus) -> Iterator[tuple[Terminated, int]]:
    """The ends of runs that are still to be seen, each with how often the container had been restarted before.

    Of a container that it can't find the kubelet says in `lastState` that it ended, and counts the next run; should the
    pod fail then, it says so in `state` too, though no container of that run was ever made. That is one end.
    """
    end, last = status.state.terminated, status.last_state.terminated
    if last:
        yield last, _restart_of_last(status, last)
    said_again = end and last and not status.container_id and end.is_lost and last.is_lost
    if end and not said_again:
        yield end, status.restart_count


def _restart_of_last(status: ContainerStatus, end: Terminated) -> int:
    """Which run `lastState` tells of.

    `restartCount` is that of the newest run: while the container can't be started, the one that ended. The next run is
    counted when its container is made; behind one that was lost, of which no id is known, at once.
    """
    waiting = status.state.waiting
    if waiting and waiting.reason not in ORDINARY_WAITS and (end.container_id or waiting.reason == CRASH_LOOP):
        return status.restart_count
    return max(status.restart_count - 1, 0)


def _terminated(pod: Pod, about: dict[str, Any], end: Terminated, restart: int) -> _Fact:
    payload = facts.ContainerTerminated(
        **about,
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
    at = end.finished_at or _stopped_at(pod)
    return _Fact(("container_terminated", about["container"], run), at, payload)


# --- times: each from what is nearest --------------------------------------------------------------------------------


def _scheduled_at(pod: Pod) -> datetime | None:
    """The condition's time; without one (a static pod, an old kubelet's eviction), when the node took it up."""
    if condition := pod.condition("PodScheduled"):
        return condition.last_transition_time or _begun_at(pod)
    return _begun_at(pod) if pod.spec.node_name else None


def _begun_at(pod: Pod) -> datetime:
    """When the kubelet took the pod up, else when it was created."""
    return pod.status.start_time or pod.metadata.creation_timestamp


def _has_run(pod: Pod) -> bool:
    """Whether its phase is or was Running: a finished pod's was if every container has started."""
    if pod.status.phase in FINISHED:
        started = [status.started_at for status in pod.status.container_statuses]
        return bool(started) and all(started)
    return pod.status.phase == "Running"


def _first_start(pod: Pod) -> datetime | None:
    """The earliest start of a main container that is still to be seen: Kubernetes forgets all but the last two."""
    starts = (status.started_at for status in pod.status.container_statuses)
    return min((start for start in starts if start), default=None)


def _last_end(pod: Pod) -> datetime | None:
    """The latest end of a container, sidecars included: the phase waits for all."""
    ends = (known.status.state.terminated for known in pod.containers() if known.kind != "ephemeral")
    return max((end.finished_at for end in ends if end and end.finished_at), default=None)


def _failed_at(pod: Pod) -> datetime:
    """The last container's end; else its disruption; else its deadline, if that passed; else when it stopped.

    While one still shows running, as on a node that was lost, the ends of others say nothing of the pod's.
    """
    running = any(known.status.state.running for known in pod.containers() if known.kind != "ephemeral")
    if not running and (end := _last_end(pod)):
        return end
    disruption = pod.condition("DisruptionTarget")
    if disruption and disruption.last_transition_time:
        return disruption.last_transition_time
    deadline = pod.spec.active_deadline_seconds
    if pod.status.reason == "DeadlineExceeded" and pod.status.start_time and deadline:
        return pod.status.start_time + timedelta(seconds=deadline)
    return _stopped_at(pod)


def _stopped_at(pod: Pod) -> datetime:
    """When it was no longer ready; else when its status was last written; else when the kubelet took it up."""
    for type_ in ("ContainersReady", "Ready"):
        unready = pod.condition(type_, "False")
        if unready and unready.last_transition_time:
            return unready.last_transition_time
    return pod.status_written_at or _begun_at(pod)


def _waiting_since(pod: Pod, container: KnownContainer) -> datetime:
    """The container's last end; else, for a main one, the pod's initialization; else when the kubelet took it up."""
    last = container.status.last_state.terminated
    if last and last.finished_at:
        return last.finished_at
    initialized = pod.condition("Initialized") if container.kind == "main" else None
    return (initialized.last_transition_time if initialized else None) or _begun_at(pod)


def _deleted_at(pod: Pod) -> datetime:
    """The last moment that its last state tells of: Kubernetes does not say when a pod went."""
    known = [pod.asked_to_end_at, _last_end(pod), pod.status_written_at, pod.metadata.creation_timestamp]
    return max(time for time in known if time)
