"""The causes of waits, ends and failures, from the reasons in a pod's status (Kubernetes v1.34). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from .facts import ContainerCause, FailureCause, WaitingCause
from .pod import Pod
from .pod_parts import LOST, ContainerStatus, Terminated

ORDINARY_WAITS = frozenset({"", "ContainerCreating", "PodInitializing"})
"""The reasons of every container's wait before its start. They give no event."""

CRASH_LOOP = "CrashLoopBackOff"

_WAITS: dict[str, WaitingCause] = {
    CRASH_LOOP: "crash_loop",
    "CreateContainerConfigError": "config_error",
    "CreateContainerError": "start_error",
    "PostStartHookError": "start_error",
    "PreCreateHookError": "start_error",
    "PreStartHookError": "start_error",
    "RunContainerError": "start_error",
    "ErrImageNeverPull": "image_pull",
    "ErrImagePull": "image_pull",
    "ImageInspectError": "image_pull",
    "ImagePullBackOff": "image_pull",
    "InvalidImageName": "image_pull",
    "RegistryUnavailable": "image_pull",
    "SignatureValidationFailed": "image_pull",
}

_CAUSES_BY_REASON: dict[str, FailureCause] = {
    "Evicted": "evicted",
    "Shutdown": "evicted",  # node shutdown, until v1.21
    "Terminated": "evicted",  # node shutdown, since v1.22
    "DeadlineExceeded": "deadline_exceeded",
    "NodeLost": "node_lost",
    "Preempting": "preempted",  # the kubelet makes room for a critical pod
    "AppArmor": "admission",
    "HostName": "admission",  # until v1.17, as MatchNodeSelector and PodFitsHostPorts
    "InvalidNodeInfo": "admission",
    "MatchNodeSelector": "admission",
    "NodeAffinity": "admission",
    "NodeName": "admission",
    "NodePorts": "admission",
    "NodeShutdown": "admission",
    "NodeUnschedulable": "admission",
    "PodFeatureUnsupported": "admission",
    "PodFitsHostPorts": "admission",
    "PodOSNotSupported": "admission",
    "PodOSSelectorNodeLabelDoesNotMatch": "admission",
    "SMTAlignmentError": "admission",  # with its own message, until v1.31
    "SysctlForbidden": "admission",
    "TaintToleration": "admission",
    "TopologyAffinityError": "admission",
    "UnexpectedAdmissionError": "admission",
}
"""The causes by `status.reason`. The kubelet also refuses pods as `OutOfcpu`, `OutOfpods`... and "Pod was rejected"."""

_CAUSES_BY_DISRUPTION: dict[str, FailureCause] = {
    "DeletionByPodGC": "node_lost",
    "DeletionByTaintManager": "evicted",
    "EvictionByEvictionAPI": "evicted",
    "PreemptionByKubeScheduler": "preempted",
    "PreemptionByScheduler": "preempted",
    "TerminationByKubelet": "evicted",
}
"""The causes by the reason of the condition `DisruptionTarget`."""

_LAST_SIGNAL = 64
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """The cause of a pod's failure, and the container that caused the failure, if any."""

    cause: FailureCause
    container: str | None = None
    end: Terminated | None = None
    reason: str = ""
    message: str = ""
    """Reason and message of the action on the pod, or of the container's end, as Kubernetes writes them."""


def waiting_cause(reason: str) -> WaitingCause:
    """Return the cause of a container's wait for the reason in `state.waiting.reason`."""
    return _WAITS.get(reason, "unknown")


def signal_of(end: Terminated) -> int | None:
    """Return the signal that ended a run. Container runtimes report it as an exit code of 128 plus the signal."""
    if end.signal or end.reason == LOST:
        return end.signal
    return end.exit_code - 128 if 128 < end.exit_code <= 128 + _LAST_SIGNAL else None


def container_cause(end: Terminated) -> ContainerCause:
    """Return the cause of a run's end. Exit code 137 alone is a signal: only `OOMKilled` means out of memory."""
    if end.reason == "OOMKilled":
        return "oom_killed"
    if end.reason == LOST:
        return "unknown"
    if end.exit_code == 0:
        return "completed"
    return "signal" if signal_of(end) else "error_exit"


def failure_of(pod: Pod) -> Failure:
    """Return the cause for a pod in the phase Failed.

    An action on the pod, for example an eviction, comes before the ends of the containers: it caused them.
    """
    status = pod.status
    if action := _action_on(pod):
        return action
    for name, end in sorted(_failed_ends(pod), key=_decisive_first):
        container = container_cause(end)
        if container != "completed":
            return Failure(container, name, end, status.reason or end.reason, status.message)
    waits = [status.state.waiting.reason for status in _statuses(pod) if status.state.waiting]
    cause: FailureCause = "image_pull" if "image_pull" in map(waiting_cause, waits) else "unknown"
    return Failure(cause, reason=status.reason, message=status.message)


def has_succeeded(pod: Pod) -> bool:
    """Return True for a pod that ended with a success, also if the kubelet refused the finished pod afterwards.

    A restarted kubelet admits all pods of its node again. It can refuse a pod whose containers completed before, and
    then changes the phase from Succeeded to Failed.
    """
    if pod.status.phase != "Failed":
        return pod.status.phase == "Succeeded"
    action = _action_on(pod)
    ends = [status.state.terminated for status in pod.status.container_statuses]
    completed = bool(ends) and all(end is not None and container_cause(end) == "completed" for end in ends)
    return action is not None and action.cause == "admission" and completed


def _action_on(pod: Pod) -> Failure | None:
    """Return the failure by an action on the pod: by `status.reason`, or else by the condition `DisruptionTarget`."""
    status = pod.status
    cause = _CAUSES_BY_REASON.get(status.reason)
    if cause is None and (status.reason.startswith("OutOf") or status.message.startswith("Pod was rejected")):
        cause = "admission"
    if cause is not None:
        return Failure(cause, reason=status.reason, message=status.message)
    disruption = pod.condition("DisruptionTarget")
    if disruption is None or disruption.reason not in _CAUSES_BY_DISRUPTION:
        return None
    reason, message = status.reason or disruption.reason, status.message or disruption.message
    return Failure(_CAUSES_BY_DISRUPTION[disruption.reason], reason=reason, message=message)


def _decisive_first(failed: tuple[str, Terminated]) -> tuple[bool, datetime]:
    """Sort by out of memory first, then by time: a container without memory often ends its neighbours."""
    _, end = failed
    return end.reason != "OOMKilled", end.finished_at or _NEVER


def _statuses(pod: Pod) -> Iterator[ContainerStatus]:
    """Return the statuses of main and init containers: sidecars and ephemeral containers cannot fail a pod."""
    return (known.status for known in pod.containers() if known.kind in ("main", "init"))


def _failed_ends(pod: Pod) -> Iterator[tuple[str, Terminated]]:
    """Yield the containers that failed. A waiting container counts with its last run.

    A container can end out of memory with exit code 0: the kernel killed a process in it, and the first process ended
    orderly (Kubernetes 1.27 and newer).
    """
    for status in _statuses(pod):
        end = status.state.terminated or (status.last_state.terminated if status.state.waiting else None)
        if end and (end.exit_code != 0 or end.reason == "OOMKilled"):
            yield status.name, end
