"""The facts of a pod's life and what each one's event holds: docs/pod-events.md describes them field by field. Pure.

An absent field is one that Kubernetes did not say.
"""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from .pod import ContainerKind

ContainerCause = Literal["completed", "oom_killed", "error_exit", "signal", "unknown"]
"""Why a container ended."""

WaitingCause = Literal["image_pull", "crash_loop", "config_error", "start_error", "unknown"]
"""Why a container waits."""

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
"""Why a pod failed."""


class Fact(BaseModel):
    """What every pod event's payload says: which pod."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_type: ClassVar[str]

    cluster: str
    namespace: str
    pod: str
    pod_uid: str


class Created(Fact):
    """The pod was made. Only what can't change: it is told the same whenever it is told."""

    event_type = "pod.created"

    service_account: str | None
    restart_policy: str | None
    containers: list[str]
    init_containers: list[str]


class OwnerName(BaseModel):
    """Who controls the pod: a Job, a ReplicaSet..."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_version: str
    kind: str
    name: str


class Observed(Fact):
    """What may change during a pod's life, as it was when the fact was first observed."""

    node: str | None
    owner: OwnerName | None
    knative_service: str | None
    knative_revision: str | None


class PodFact(Observed):
    """A fact of the pod as a whole."""

    images: dict[str, str]
    """By the container's name, init and ephemeral containers included."""


class Scheduled(PodFact):
    """The pod has its node."""

    event_type = "pod.scheduled"


class Unschedulable(PodFact):
    """The scheduler found no node for it; told once, however often it tries."""

    event_type = "pod.unschedulable"

    message: str | None


class Initialized(PodFact):
    """The init containers have done their work, and the sidecars have started."""

    event_type = "pod.initialized"


class Running(PodFact):
    """All containers have started."""

    event_type = "pod.running"


class ContainerFact(Observed):
    """A fact of one container."""

    container: str
    container_kind: ContainerKind
    image: str | None
    image_id: str | None
    restart: int
    """How often it had been restarted before."""


class ContainerWaiting(ContainerFact):
    """A container can't start; told once for each reason and restart."""

    event_type = "pod.container_waiting"

    cause: WaitingCause
    reason: str
    message: str | None


class ContainerTerminated(ContainerFact):
    """A container ended; told for each restart."""

    event_type = "pod.container_terminated"

    cause: ContainerCause
    exit_code: int
    signal: int | None
    reason: str | None
    container_id: str | None
    started_at: datetime | None
    finished_at: datetime | None


class Succeeded(PodFact):
    """All containers ended with exit code 0, and none is started again."""

    event_type = "pod.succeeded"


class Failed(PodFact):
    """The pod ended, and not well."""

    event_type = "pod.failed"

    cause: FailureCause
    container: str | None
    """The one that decided it, with its exit code and signal."""
    exit_code: int | None
    signal: int | None
    reason: str | None
    message: str | None


class Terminating(PodFact):
    """The pod's deletion was asked for."""

    event_type = "pod.terminating"

    grace_period_seconds: int


class Deleted(PodFact):
    """The pod is gone from the API server."""

    event_type = "pod.deleted"

    observed: Literal["watched", "reconciled"]
    """By the deletion itself; or by its absence, which a GET confirmed."""
    phase: str | None
    """The last one that was seen."""


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
"""What two states of one pod may say differently about the same fact, besides `ALWAYS_MAY_DIFFER`. The first wins."""

ALWAYS_MAY_DIFFER = frozenset(
    {
        *("aggregate_id", "correlation_id", "user_id"),
        *("node", "owner", "knative_service", "knative_revision", "image", "images"),
    }
)
"""What follows labels, annotations, owners and `spec`, which can be changed at any time."""
