"""The parts of a pod object in the Kubernetes API v1, with the fields used by `pod_events`. Pure.

Further fields are ignored. An omitted field, or null, is empty. The check of a list ends at its first error, so the
number of errors has a bound.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, FailFast, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LOST = "ContainerStatusUnknown"
"""The reason of a container that the kubelet could not find. Its exit code 137 is made up."""


def null_as_list(value: object) -> object:
    """Return an empty list for null."""
    return [] if value is None else value


def _texts(value: object) -> object:
    """Return an empty object for null. Raises at the first value that is no text: a map may have a million of them."""
    if isinstance(value, dict) and not all(isinstance(text, str) for text in value.values()):
        raise PydanticCustomError("texts", "every value must be a string")
    return null_as_object(value)


def null_as_object(value: object) -> object:
    """Return an empty object for null."""
    return {} if value is None else value


def _epoch_as_unknown(value: datetime | None) -> datetime | None:
    """Return None for 1970, which a container runtime writes if a step never happened."""
    return None if value is None or value <= _EPOCH else value


Time = Annotated[AwareDatetime | None, AfterValidator(_epoch_as_unknown)]
Texts = Annotated[dict[str, str], BeforeValidator(_texts)]


class PodPart(BaseModel):
    """The base of all parts: frozen, with the names of the Kubernetes API."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)


class Owner(PodPart):
    """An entry of `metadata.ownerReferences`."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class ManagedFields(PodPart):
    """An entry of `metadata.managedFields`: the time of the last write to a part of the pod."""

    subresource: str = ""
    time: Time = None


class ObjectMeta(PodPart):
    """`metadata`."""

    uid: str = Field(min_length=1)
    name: str
    namespace: str
    creation_timestamp: AwareDatetime
    deletion_timestamp: Time = None
    deletion_grace_period_seconds: int | None = None
    labels: Texts = {}
    annotations: Texts = {}
    owner_references: Annotated[list[Owner], FailFast(), BeforeValidator(null_as_list)] = []
    managed_fields: Annotated[list[ManagedFields], FailFast(), BeforeValidator(null_as_list)] = []


class Container(PodPart):
    """A container of `spec`."""

    name: str
    image: str | None = None
    restart_policy: str | None = None


Containers = Annotated[list[Container], FailFast(), BeforeValidator(null_as_list)]


class PodSpec(PodPart):
    """`spec`."""

    node_name: str | None = None
    service_account_name: str | None = None
    restart_policy: str | None = None
    active_deadline_seconds: int | None = None
    containers: Containers = []
    init_containers: Containers = []
    ephemeral_containers: Containers = []


class Waiting(PodPart):
    """The state of a container before its first start, or between two runs."""

    reason: str = ""
    message: str = ""


class RunningState(PodPart):
    """The state of a running container."""

    started_at: Time = None


class Terminated(PodPart):
    """The state of a container after its end."""

    exit_code: int
    signal: int | None = None
    reason: str = ""
    started_at: Time = None
    finished_at: Time = None
    container_id: str | None = Field(default=None, alias="containerID")

    @property
    def is_lost(self) -> bool:
        """Return True if the kubelet lost the container and does not know its id."""
        return self.reason == LOST and not self.container_id


class ContainerState(PodPart):
    """The state of a container. At most one field is set."""

    waiting: Waiting | None = None
    running: RunningState | None = None
    terminated: Terminated | None = None


ContainerStateOrEmpty = Annotated[ContainerState, BeforeValidator(null_as_object)]


class ContainerStatus(PodPart):
    """An entry of `status.containerStatuses`, written by the kubelet."""

    name: str
    restart_count: int = 0
    image: str = ""
    image_id: str = Field(default="", alias="imageID")
    container_id: str | None = Field(default=None, alias="containerID")
    state: ContainerStateOrEmpty = ContainerState()
    last_state: ContainerStateOrEmpty = ContainerState()

    @property
    def started_at(self) -> datetime | None:
        """The earliest start in `state` and `lastState`."""
        runs = (self.last_state.terminated, self.state.running, self.state.terminated)
        return min((run.started_at for run in runs if run and run.started_at), default=None)


Statuses = Annotated[list[ContainerStatus], FailFast(), BeforeValidator(null_as_list)]


class Condition(PodPart):
    """An entry of `status.conditions`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time = None


class PodStatus(PodPart):
    """`status`."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: Time = None
    conditions: Annotated[list[Condition], FailFast(), BeforeValidator(null_as_list)] = []
    container_statuses: Statuses = []
    init_container_statuses: Statuses = []
    ephemeral_container_statuses: Statuses = []
