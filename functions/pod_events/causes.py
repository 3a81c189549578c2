"""Why a container waits or ended, and why a pod failed, from where Kubernetes says it (v1.34). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from .facts import ContainerCause, FailureCause, WaitingCause
from .pod import LOST, ContainerStatus, Pod, Terminated

ORDINARY_WAITS = frozenset({"", "ContainerCreating", "PodInitializing"})
"""On the way to a start: no event."""

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

_REASONS: dict[str, FailureCause] = {
    "Evicted": "evicted",
    "Shutdown": "evicted",  # a node that shuts down, until v1.21
    "Terminated": "evicted",  # the same, since
    "DeadlineExceeded": "deadline_exceeded",
    "NodeLost": "node_lost",
    "Preempting": "preempted",  # by the kubelet, for a critical pod
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
"""By `status.reason`; besides these, the kubelet's refusals `OutOfcpu`, `OutOfpods`..., and its "Pod was rejected"."""

_DISRUPTIONS: dict[str, FailureCause] = {
    "DeletionByPodGC": "node_lost",
    "DeletionByTaintManager": "evicted",
    "EvictionByEvictionAPI": "evicted",
    "PreemptionByKubeScheduler": "preempted",
    "PreemptionByScheduler": "preempted",
    "TerminationByKubelet": "evicted",
}
"""By the reason of the condition `DisruptionTarget`."""

_LAST_SIGNAL = 64
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pod failed; the container that decided it, if one did, with how it ended."""

    cause: FailureCause
    container: str | None = None
    end: Terminated | None = None


def waiting_cause(reason: str) -> WaitingCause:
    """Why a container waits, from `state.waiting.reason`."""
    return _WAITS.get(reason, "unknown")


def signal_of(end: Terminated) -> int | None:
    """The signal that ended it: runtimes report 128 more as the exit code."""
    if end.signal or end.reason == LOST:
        return end.signal
    return end.exit_code - 128 if 128 < end.exit_code <= 128 + _LAST_SIGNAL else None


def container_cause(end: Terminated) -> ContainerCause:
    """Why a container ended: out of memory is in the reason, and exit code 137 alone is only a signal."""
    if end.reason == "OOMKilled":
        return "oom_killed"
    if end.reason == LOST:
        return "unknown"
    if end.exit_code == 0:
        return "completed"
    return "signal" if signal_of(end) else "error_exit"


def failure_of(pod: Pod) -> Failure:
    """Why `pod`, whose phase is Failed, did: what was done to it outweighs how its containers ended by that."""
    if done := _done_to(pod):
        return Failure(done)
    for name, end in sorted(_failed_ends(pod), key=_decisive_first):
        ended = container_cause(end)
        if ended != "completed":
            return Failure(ended, name, end)
    waits = [status.state.waiting.reason for status in _statuses(pod) if status.state.waiting]
    return Failure("image_pull" if "image_pull" in map(waiting_cause, waits) else "unknown")


def _done_to(pod: Pod) -> FailureCause | None:
    status = pod.status
    if status.reason in _REASONS:
        return _REASONS[status.reason]
    if status.reason.startswith("OutOf") or status.message.startswith("Pod was rejected"):
        return "admission"
    disruption = pod.condition("DisruptionTarget")
    return _DISRUPTIONS.get(disruption.reason) if disruption else None


def _decisive_first(failed: tuple[str, Terminated]) -> tuple[bool, datetime]:
    """Out of memory first, since it is what ends others; then what ended first."""
    _, end = failed
    return end.reason != "OOMKilled", end.finished_at or _NEVER


def _statuses(pod: Pod) -> Iterator[ContainerStatus]:
    """Those of containers whose end counts: a sidecar's and an ephemeral container's do not."""
    return (known.status for known in pod.containers() if known.kind in ("main", "init"))


def _failed_ends(pod: Pod) -> Iterator[tuple[str, Terminated]]:
    """How each container ended that did not end well: the last time, if it waits for the next."""
    for status in _statuses(pod):
        end = status.state.terminated or (status.last_state.terminated if status.state.waiting else None)
        if end and end.exit_code != 0:
            yield status.name, end
