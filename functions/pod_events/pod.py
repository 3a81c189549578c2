"""A pod as Kubernetes sends it, in those parts that its lifecycle is read from (Kubernetes API v1). Pure.

Every other field is let through unread, and what Kubernetes leaves out or sends as null is empty here.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from twofold.errors import Invalid, Problem

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LOST = "ContainerStatusUnknown"
"""Why a container ended that the kubelet could not find any more; the exit code 137 that it gives is made up."""

ContainerKind = Literal["main", "init", "sidecar", "ephemeral"]


def _null_is_empty(value: object) -> object:
    return [] if value is None else value


def _null_is_none(value: object) -> object:
    return {} if value is None else value


def _epoch_is_unknown(value: datetime | None) -> datetime | None:
    """A container runtime writes 1970 as the time of what never happened."""
    return None if value is None or value <= _EPOCH else value


Time = Annotated[AwareDatetime | None, AfterValidator(_epoch_is_unknown)]
Texts = Annotated[dict[str, str], BeforeValidator(_null_is_none)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)


class Owner(_Part):
    """An entry of `metadata.ownerReferences`."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class ManagedFields(_Part):
    """Who last wrote which part, and when."""

    subresource: str = ""
    time: Time = None


class ObjectMeta(_Part):
    """`metadata`."""

    uid: str = Field(min_length=1)
    name: str
    namespace: str
    creation_timestamp: AwareDatetime
    deletion_timestamp: Time = None
    deletion_grace_period_seconds: int | None = None
    labels: Texts = {}
    annotations: Texts = {}
    owner_references: Annotated[list[Owner], BeforeValidator(_null_is_empty)] = []
    managed_fields: Annotated[list[ManagedFields], BeforeValidator(_null_is_empty)] = []


class Container(_Part):
    """A container of `spec`."""

    name: str
    image: str | None = None
    restart_policy: str | None = None


Containers = Annotated[list[Container], BeforeValidator(_null_is_empty)]


class PodSpec(_Part):
    """`spec`."""

    node_name: str | None = None
    service_account_name: str | None = None
    restart_policy: str | None = None
    active_deadline_seconds: int | None = None
    containers: Containers = []
    init_containers: Containers = []
    ephemeral_containers: Containers = []


class Waiting(_Part):
    """A container that does not run yet, or not at the moment."""

    reason: str = ""
    message: str = ""


class RunningState(_Part):
    """A container that runs."""

    started_at: Time = None


class Terminated(_Part):
    """A container that has ended."""

    exit_code: int
    signal: int | None = None
    reason: str = ""
    started_at: Time = None
    finished_at: Time = None
    container_id: str | None = Field(default=None, alias="containerID")

    @property
    def is_lost(self) -> bool:
        """Whether the kubelet lost the container, and so knows not even its id."""
        return self.reason == LOST and not self.container_id


class ContainerState(_Part):
    """At most one of the three is there."""

    waiting: Waiting | None = None
    running: RunningState | None = None
    terminated: Terminated | None = None


State = Annotated[ContainerState, BeforeValidator(_null_is_none)]


class ContainerStatus(_Part):
    """What the kubelet says about a container."""

    name: str
    restart_count: int = 0
    image: str = ""
    image_id: str = Field(default="", alias="imageID")
    container_id: str | None = Field(default=None, alias="containerID")
    state: State = ContainerState()
    last_state: State = ContainerState()

    @property
    def started_at(self) -> datetime | None:
        """The earliest start that is still to be seen."""
        ends = (self.last_state.terminated, self.state.running, self.state.terminated)
        return min((end.started_at for end in ends if end and end.started_at), default=None)


Statuses = Annotated[list[ContainerStatus], BeforeValidator(_null_is_empty)]


class Condition(_Part):
    """An entry of `status.conditions`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time = None


class PodStatus(_Part):
    """`status`."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: Time = None
    conditions: Annotated[list[Condition], BeforeValidator(_null_is_empty)] = []
    container_statuses: Statuses = []
    init_container_statuses: Statuses = []
    ephemeral_container_statuses: Statuses = []


class KnownContainer(NamedTuple):
    """A container that has a status, and what it is for."""

    kind: ContainerKind
    status: ContainerStatus
    image: str | None
    """As `spec` names it."""


class Pod(_Part):
    """The object. Made by `Pod.of`."""

    api_version: Literal["v1"]
    kind: Literal["Pod"]
    metadata: ObjectMeta
    spec: PodSpec
    status: Annotated[PodStatus, BeforeValidator(_null_is_none)] = PodStatus()

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """The pod that the JSON object `data` is. Raises `Invalid`, which names every field that makes it none."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = tuple(
                Problem(".".join(["data", *map(str, wrong["loc"])]), wrong["msg"])
                for wrong in error.errors(include_url=False, include_context=False, include_input=False)
            )
            raise Invalid("this is no pod (Kubernetes API v1)", problems=problems) from None

    def condition(self, type_: str, status: str = "True") -> Condition | None:
        """The condition of that type, if it has that status."""
        return next((one for one in self.status.conditions if (one.type, one.status) == (type_, status)), None)

    def containers(self) -> Iterator[KnownContainer]:
        """Every container that has a status: init containers and sidecars first, as they start."""
        spec = self.spec
        images = {one.name: one.image for one in [*spec.init_containers, *spec.containers, *spec.ephemeral_containers]}
        sidecars = {container.name for container in spec.init_containers if container.restart_policy == "Always"}
        for status in self.status.init_container_statuses:
            kind: ContainerKind = "sidecar" if status.name in sidecars else "init"
            yield KnownContainer(kind, status, images.get(status.name))
        for status in self.status.container_statuses:
            yield KnownContainer("main", status, images.get(status.name))
        for status in self.status.ephemeral_container_statuses:
            yield KnownContainer("ephemeral", status, images.get(status.name))

    @property
    def owner(self) -> Owner | None:
        """The one that controls it."""
        return next((owner for owner in self.metadata.owner_references if owner.controller), None)

    @property
    def asked_to_end_at(self) -> datetime | None:
        """When its deletion was asked for, as far as this state tells; once no grace is left, when it was removed.

        The API server moves its own time back when the grace period is shortened, but never into the past.
        """
        deletion = self.metadata.deletion_timestamp
        if deletion is None:
            return None
        return deletion - timedelta(seconds=self.metadata.deletion_grace_period_seconds or 0)

    @property
    def is_removed(self) -> bool:
        """Whether it leaves the API server with this state, unless a finalizer holds it: no grace is left."""
        return self.metadata.deletion_timestamp is not None and self.metadata.deletion_grace_period_seconds == 0

    @property
    def status_written_at(self) -> datetime | None:
        """When somebody last changed its status."""
        written = (entry.time for entry in self.metadata.managed_fields if entry.subresource == "status")
        return max((time for time in written if time), default=None)
