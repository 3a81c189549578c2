"""Whose work a pod's events belong to, and how they are named. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from twofold.event.attribute import Attribute
from twofold.event.identity import derived_id
from twofold.event.reserved import POD_SOURCE

from .pod import Pod

_ATTRIBUTE: TypeAdapter[str] = TypeAdapter(Attribute)


def given_id(pod_uid: str, *fact: str) -> str:
    """CloudEvents' `id` of a fact: the same from every state that shows it. Unique with the pod's uid alone."""
    return "/".join([pod_uid, *fact])


def fact_id(given: str) -> UUID:
    """The identity of the event with that `id`, in the name space of pod events."""
    return derived_id(POD_SOURCE, given)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the ids of the work are: names of labels or annotations, the first that is there counts."""

    cluster: str
    aggregate_keys: Sequence[str]
    correlation_keys: Sequence[str]
    user_keys: Sequence[str]

    def aggregate_id(self, pod: Pod) -> str:
        """The work's id; without one the pod's uid, so that a pod's events stay together all the same."""
        return _first(pod, self.aggregate_keys) or pod.metadata.uid

    def metadata(self, pod: Pod) -> dict[str, Any]:
        """`correlation_id` and `user_id`, where there are such: neither stands in for another."""
        found = {
            "correlation_id": _first(pod, self.correlation_keys),
            "user_id": _first(pod, self.user_keys),
        }
        return {name: value for name, value in found.items() if value}


def _first(pod: Pod, keys: Sequence[str]) -> str | None:
    """The first label or annotation of `keys` that an attribute can carry."""
    meta = pod.metadata
    values = (meta.labels.get(key) or meta.annotations.get(key) for key in keys)
    return next((value for value in values if value and _is_attribute(value)), None)


def _is_attribute(value: str) -> bool:
    try:
        _ATTRIBUTE.validate_python(value)
    except ValidationError:
        return False
    return True
