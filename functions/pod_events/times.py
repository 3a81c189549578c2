"""The time of each fact, read from the pod. Pure.

If Kubernetes gives no time for a fact, the nearest time in the pod takes its place. docs/pod-events.md lists the rules.
"""

from datetime import UTC, datetime, timedelta

from twofold.event.time import parse_time

from .pod import KnownContainer, Pod

_LATEST = datetime.max.replace(tzinfo=UTC)
_MIRROR, _SEEN = "kubernetes.io/config.mirror", "kubernetes.io/config.seen"
_FINISHED = frozenset({"Succeeded", "Failed"})


def created_at(pod: Pod) -> datetime:
    """Return the creation time, or for a static pod the earlier time at which its kubelet saw it.

    A kubelet runs a static pod before the API server has the pod. It keeps the time in an annotation (Kubernetes,
    `pkg/kubelet/types`).
    """
    created, annotations = pod.metadata.creation_timestamp, pod.metadata.annotations
    if _MIRROR not in annotations:
        return created
    try:
        return min(created, parse_time(annotations.get(_SEEN, "")))
    except ValueError:
        return created


def scheduled_at(pod: Pod) -> datetime | None:
    """Return the time of the condition `PodScheduled`, or the kubelet's start if a pod on a node lacks the condition.

    Static pods, and pods that an old kubelet evicted, lack it.
    """
    if condition := pod.condition("PodScheduled"):
        return condition.last_transition_time or begun_at(pod)
    return begun_at(pod) if pod.spec.node_name else None


def begun_at(pod: Pod) -> datetime:
    """Return the time at which the kubelet accepted the pod, else the creation time."""
    return pod.status.start_time or created_at(pod)


def running_since(pod: Pod) -> datetime | None:
    """Return the earliest known start of a main container, or None if the pod never was Running.

    Kubernetes keeps only the last two runs of a container. A finished pod was Running if every main container started.
    """
    starts = [status.started_at for status in pod.status.container_statuses]
    finished = pod.status.phase in _FINISHED
    was_running = bool(starts) and all(starts) if finished else pod.status.phase == "Running"
    return min((start for start in starts if start), default=begun_at(pod)) if was_running else None


def succeeded_at(pod: Pod) -> datetime:
    """Return the end of the last container."""
    return _last_end(pod) or stopped_at(pod)


def failed_at(pod: Pod) -> datetime:
    """Return the end of the last container; else the disruption; else the passed deadline; else `stopped_at`.

    While a container is shown as running, as on a lost node, an earlier end says nothing about the pod.
    """
    running = any(known.status.state.running for known in pod.containers() if known.kind != "ephemeral")
    if not running and (end := _last_end(pod)):
        return end
    disruption = pod.condition("DisruptionTarget")
    if disruption and disruption.last_transition_time:
        return disruption.last_transition_time
    start, deadline = pod.status.start_time, pod.spec.active_deadline_seconds or 0
    if pod.status.reason == "DeadlineExceeded" and start and 0 < deadline < (_LATEST - start).total_seconds():
        return start + timedelta(seconds=deadline)
    return stopped_at(pod)


def stopped_at(pod: Pod) -> datetime:
    """Return the time at which the pod became unready; else the last write to the status; else `begun_at`."""
    for type_ in ("ContainersReady", "Ready"):
        unready = pod.condition(type_, "False")
        if unready and unready.last_transition_time:
            return unready.last_transition_time
    return pod.status_written_at or begun_at(pod)


def waiting_since(pod: Pod, container: KnownContainer) -> datetime:
    """Return the container's last end; else, for a main container, the pod's initialization; else `begun_at`."""
    last = container.status.last_state.terminated
    if last and last.finished_at:
        return last.finished_at
    initialized = pod.condition("Initialized") if container.kind == "main" else None
    return (initialized.last_transition_time if initialized else None) or begun_at(pod)


def deleted_at(pod: Pod) -> datetime:
    """Return the latest time in the pod's last state: Kubernetes does not record the removal."""
    known = [pod.deletion_requested_at, _last_end(pod), pod.status_written_at, pod.metadata.creation_timestamp]
    return max(time for time in known if time)


def _last_end(pod: Pod) -> datetime | None:
    """Return the latest end of a container, sidecars included: the phase waits for the last of them."""
    ends = (known.status.state.terminated for known in pod.containers() if known.kind != "ephemeral")
    return max((end.finished_at for end in ends if end and end.finished_at), default=None)
