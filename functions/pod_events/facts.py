"""The facts of a pod's life, and the payloads of their events. docs/pod-events.md describes every field. Pure.

A field is absent if Kubernetes does not give its value.
"""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from .pod import ContainerKind

ContainerCause = Literal["completed", "oom_killed", "error_exit", "signal", "unknown"]
"""The causes of a container's end."""

WaitingCause = Literal["image_pull", "crash_loop", "config_error", "start_error", "unknown"]
"""The causes of a container's wait."""

FailureCause = Literal[
    "evicted",
    "deadline_exceeded",
    "oom_killed",
    "image_pull",
    "error_exit",
    "signal",
    "node_lost",
    "preempted",
    "admission",
    "unknown",
]
"""The causes of a pod's failure."""


class Fact(BaseModel):
    """The base of the payloads: the names of the pod."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_type: ClassVar[str]

    cluster: str
    namespace: str
    pod: str
    pod_uid: str


class Created(Fact):
    """The pod was created. These fields never change, so every state gives the same payload."""

    event_type = "pod.created"

    service_account: str | None
    restart_policy: str | None
    containers: list[str]
    init_containers: list[str]


class OwnerName(BaseModel):
    """The controller of the pod: a Job, a ReplicaSet..."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_version: str
    kind: str
    name: str


class Observed(Fact):
    """The base of payloads with values that may change later. They are as in the first observation of the fact."""

    node: str | None
    owner: OwnerName | None
    knative_service: str | None
    knative_revision: str | None


class PodFact(Observed):
    """The base of facts about the whole pod."""

    images: dict[str, str]
    """The images by container name, init and ephemeral containers included."""


class Scheduled(PodFact):
    """The pod has a node."""

    event_type = "pod.scheduled"


class Unschedulable(PodFact):
    """The scheduler found no node for the pod. A pod has this fact once, even after many tries."""

    event_type = "pod.unschedulable"

    message: str | None


class Initialized(PodFact):
    """The init containers have finished, and the sidecars have started."""

    event_type = "pod.initialized"


class Running(PodFact):
    """The containers have started."""

    event_type = "pod.running"


class ContainerFact(Observed):
    """The base of facts about a single container."""

    container: str
    container_kind: ContainerKind
    image: str | None
    image_id: str | None
    restart: int
    """The number of restarts before this run."""


class ContainerWaiting(ContainerFact):
    """A container cannot start. Every pair of reason and restart has this fact once."""

    event_type = "pod.container_waiting"

    cause: WaitingCause
    reason: str
    message: str | None


class ContainerTerminated(ContainerFact):
    """A run of a container ended."""

    event_type = "pod.container_terminated"

    cause: ContainerCause
    exit_code: int
    signal: int | None
    reason: str | None
    container_id: str | None
    started_at: datetime | None
    finished_at: datetime | None


class Succeeded(PodFact):
    """The containers ended with exit code 0, and Kubernetes restarts no container."""

    event_type = "pod.succeeded"


class Failed(PodFact):
    """The pod ended with a failure."""

    event_type = "pod.failed"

    cause: FailureCause
    container: str | None
    """The container that caused the failure. `exit_code` and `signal` are of this container."""
    exit_code: int | None
    signal: int | None
    reason: str | None
    message: str | None


class Terminating(PodFact):
    """The deletion of the pod was requested."""

    event_type = "pod.terminating"

    grace_period_seconds: int


class Deleted(PodFact):
    """The pod has left the API server."""

    event_type = "pod.deleted"

    observed: Literal["watched", "reconciled"]
    """`watched`: the deletion was sent. `reconciled`: the pod was missing in a list and in a GET."""
    phase: str | None
    """The last observed phase."""


MAY_DIFFER: dict[str, frozenset[str]] = {
    Created.event_type: frozenset(),
    Scheduled.event_type: frozenset({"timestamp"}),
    Unschedulable.event_type: frozenset({"message"}),
    Initialized.event_type: frozenset({"timestamp"}),
    Running.event_type: frozenset({"timestamp"}),
    ContainerWaiting.event_type: frozenset({"timestamp", "message", "image_id"}),
    ContainerTerminated.event_type: frozenset({"timestamp", "image_id"}),
    Succeeded.event_type: frozenset(),
    Failed.event_type: frozenset({"timestamp", "cause", "container", "exit_code", "signal", "reason", "message"}),
    Terminating.event_type: frozenset({"timestamp", "grace_period_seconds"}),
    Deleted.event_type: frozenset({"timestamp", "observed", "phase"}),
}
"""The fields with different values in two observations of a fact, besides `ALWAYS_MAY_DIFFER`. The first one wins."""

ALWAYS_MAY_DIFFER = frozenset(
    {
        *("aggregate_id", "correlation_id", "user_id"),
        *("node", "owner", "knative_service", "knative_revision", "image", "images"),
    }
)
"""The fields from labels, annotations, owners and `spec`: they can change at any time."""
