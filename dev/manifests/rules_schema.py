"""Kubernetes' own schemas, strictly: a member that they don't know is a mistake."""

from collections.abc import Iterator

import kubernetes_validate

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered, called

KUBERNETES = "1.36"
"""The version whose schemas are asked."""

_OTHERS = (".knative.dev/",)


def objects_are_valid(rendered: Rendered, _: Project) -> Iterator[str]:
    """By the JSON schemas of Kubernetes. Knative's come with its archives: tests/manifests/test_knative_schemas.py."""
    for thing in rendered.objects:
        if any(group in thing["apiVersion"] for group in _OTHERS):
            continue
        try:
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{called(thing)}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"{called(thing)}: {error.message}"


def objects_are_in_one_namespace(rendered: Rendered, _: Project) -> Iterator[str]:
    """Which exists: `kubectl apply` needs no more than the stream. No object is there twice."""
    seen = set()
    for thing in rendered.objects:
        name = (thing["apiVersion"], thing["kind"], thing["metadata"]["name"])
        if name in seen:
            yield f"{called(thing)} is there twice"
        seen.add(name)
        namespace = thing["metadata"].get("namespace")
        if thing["kind"] in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
            continue
        if namespace is None or rendered.named("Namespace", namespace) is None:
            yield f"{called(thing)}: its namespace {namespace} is not there"


RULES = (objects_are_valid, objects_are_in_one_namespace)
