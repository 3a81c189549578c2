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
    "InvalidNodeInfo": "admission",
    "NodeAffinity": "admission",
    "NodeName": "admission",
    "NodePorts": "admission",
    "NodeShutdown": "admission",
    "NodeUnschedulable": "admission",
    "PodFeatureUnsupported": "admission",
    "PodOSNotSupported": "admission",
    "PodOSSelectorNodeLabelDoesNotMatch": "admission",
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
    if cause := _action_on(pod):
        return Failure(cause)
    for name, end in sorted(_failed_ends(pod), key=_decisive_first):
        container = container_cause(end)
        if container != "completed":
            return Failure(container, name, end)
    waits = [status.state.waiting.reason for status in _statuses(pod) if status.state.waiting]
    return Failure("image_pull" if "image_pull" in map(waiting_cause, waits) else "unknown")


def _action_on(pod: Pod) -> FailureCause | None:
    status = pod.status
    if status.reason in _CAUSES_BY_REASON:
        return _CAUSES_BY_REASON[status.reason]
    if status.reason.startswith("OutOf") or status.message.startswith("Pod was rejected"):
        return "admission"
    disruption = pod.condition("DisruptionTarget")
    return _CAUSES_BY_DISRUPTION.get(disruption.reason) if disruption else None


def _decisive_first(failed: tuple[str, Terminated]) -> tuple[bool, datetime]:
    """Sort by out of memory first, then by time: a container without memory often ends its neighbours."""
    _, end = failed
    return end.reason != "OOMKilled", end.finished_at or _NEVER


def _statuses(pod: Pod) -> Iterator[ContainerStatus]:
    """Return the statuses of main and init containers: sidecars and ephemeral containers cannot fail a pod."""
    return (known.status for known in pod.containers() if known.kind in ("main", "init"))


def _failed_ends(pod: Pod) -> Iterator[tuple[str, Terminated]]:
    """Yield the containers with an exit code other than 0. A waiting container counts with its last run."""
    for status in _statuses(pod):
        end = status.state.terminated or (status.last_state.terminated if status.state.waiting else None)
        if end and end.exit_code != 0:
            yield status.name, end
