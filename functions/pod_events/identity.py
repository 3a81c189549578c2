"""The ids of pod events, and the ids of the work to which a pod belongs. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from twofold.event.attribute import Required

from .pod import Pod

_ATTRIBUTE: TypeAdapter[str] = TypeAdapter(Required)


def given_id(pod_uid: str, *fact: str) -> str:
    """Return the CloudEvents `id` of a fact: the same in every state of the pod, and unique because of the uid."""
    return "/".join([pod_uid, *fact])


@dataclass(frozen=True, slots=True)
class Identity:
    """The labels and annotations with the ids of the work. The first one on the pod counts."""

    cluster: str
    aggregate_keys: Sequence[str]
    correlation_keys: Sequence[str]
    user_keys: Sequence[str]

    def aggregate_id(self, pod: Pod) -> str:
        """Return the id of the work, else the pod's uid: so the events of a pod stay together."""
        return _first(pod, self.aggregate_keys) or pod.metadata.uid

    def metadata(self, pod: Pod) -> dict[str, Any]:
        """Return `correlation_id` and `user_id`, if the pod has them."""
        found = {
            "correlation_id": _first(pod, self.correlation_keys),
            "user_id": _first(pod, self.user_keys),
        }
        return {name: value for name, value in found.items() if value}


def _first(pod: Pod, keys: Sequence[str]) -> str | None:
    """Return the first label or annotation of `keys` whose value is a valid attribute."""
    meta = pod.metadata
    values = (meta.labels.get(key) or meta.annotations.get(key) for key in keys)
    return next((value for value in values if value and _is_attribute(value)), None)


def _is_attribute(value: str) -> bool:
    try:
        _ATTRIBUTE.validate_python(value)
    except ValidationError:
        return False
    return True
