"""A pod object of the Kubernetes API v1, at one moment. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, ValidationError

from twofold.errors import Invalid, Problem

from .pod_parts import Condition, ContainerStatus, ObjectMeta, Owner, PodPart, PodSpec, PodStatus, null_as_object

ContainerKind = Literal["main", "init", "sidecar", "ephemeral"]


class KnownContainer(NamedTuple):
    """A container with a status, and its purpose in the pod."""

    kind: ContainerKind
    status: ContainerStatus
    image: str | None
    """The image in `spec`."""


class Pod(PodPart):
    """The pod object. `Pod.of` makes it from JSON."""

    api_version: Literal["v1"]
    kind: Literal["Pod"]
    metadata: ObjectMeta
    spec: PodSpec
    status: Annotated[PodStatus, BeforeValidator(null_as_object)] = PodStatus()

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """Return the pod of a JSON object. Raises `Invalid` with a `Problem` for every wrong field."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = tuple(
                Problem(".".join(["data", *map(str, wrong["loc"])]), wrong["msg"])
                for wrong in error.errors(include_url=False, include_context=False, include_input=False)
            )
            raise Invalid("this is no pod (Kubernetes API v1)", problems=problems) from None

    def condition(self, type_: str, status: str = "True") -> Condition | None:
        """Return the condition of this type, if it has this status."""
        wanted = (type_, status)
        return next((found for found in self.status.conditions if (found.type, found.status) == wanted), None)

    def containers(self) -> Iterator[KnownContainer]:
        """Return the containers with a status in the order of their start: init containers and sidecars first."""
        spec = self.spec
        in_spec = [*spec.init_containers, *spec.containers, *spec.ephemeral_containers]
        images = {container.name: container.image for container in in_spec}
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
        """The controller of the pod: a Job, a ReplicaSet..."""
        return next((owner for owner in self.metadata.owner_references if owner.controller), None)

    @property
    def deletion_requested_at(self) -> datetime | None:
        """The time of the deletion request, or of the pod's removal if no grace period is left.

        The API server moves `deletionTimestamp` back when the grace period is shortened, but never into the past. It
        takes a grace period of any length, and its own sum then overflows. So a request before the creation is moved to
        the creation.
        """
        deletion, created = self.metadata.deletion_timestamp, self.metadata.creation_timestamp
        if deletion is None:
            return None
        grace = self.metadata.deletion_grace_period_seconds or 0
        if grace > (deletion - created).total_seconds():
            return min(created, deletion)
        return deletion - timedelta(seconds=max(grace, 0))

    @property
    def is_removed(self) -> bool:
        """Return True if no grace period is left: the pod leaves the API server, unless a finalizer holds it."""
        return self.metadata.deletion_timestamp is not None and self.metadata.deletion_grace_period_seconds == 0

    @property
    def status_written_at(self) -> datetime | None:
        """The time of the last write to `status`."""
        written = (entry.time for entry in self.metadata.managed_fields if entry.subresource == "status")
        return max((time for time in written if time), default=None)
