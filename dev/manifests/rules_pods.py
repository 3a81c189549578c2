"""Rules of general practice: valid objects and hardened pods.

No maintained linter for Knative manifests is on PyPI, and `make check` needs Python and PyPI alone.
"""

from collections.abc import Iterator

import kubernetes_validate

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered, called, containers, differences, mounts

KUBERNETES = "1.36"
"""The Kubernetes version of the schemas."""

HARDENED = {
    "privileged": False,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The members of `securityContext` in every container, with those of the pod."""

READINESS = {"path": "/healthz"}
"""The `httpGet` of a function's readiness: MongoDB was reached. By default Knative checks for an open port only."""

LIVENESS = {"path": "/livez"}
"""The `httpGet` of a function's liveness, which asks only the process."""


def require_valid_objects(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require objects that the strict Kubernetes schemas accept.

    The schemas of Knative come with its archives: tests/manifests/test_knative_schemas.py uses them.
    """
    for thing in rendered.objects:
        if ".knative.dev/" not in thing["apiVersion"]:
            try:
                kubernetes_validate.validate(thing, KUBERNETES, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{called(thing)}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{called(thing)}: {error.message}"


def require_hardening(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require containers without privileges, with resources. Functions have probes and a read-only file system."""
    for thing, spec in rendered.pods():
        for container in containers(spec):
            is_function = container["image"].partition(":")[0] in project.artifacts
            context = {"privileged": False} | spec.get("securityContext", {}) | container.get("securityContext", {})
            yield from differences(
                thing, context, HARDENED | {"readOnlyRootFilesystem": True} if is_function else HARDENED
            )
        if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")) or "hostPath" in str(spec):
            yield f"{called(thing)}: hostNetwork, hostPID, hostIPC and hostPath must be absent"
        if thing["kind"] != "StatefulSet" and "emptyDir" not in mounts(spec).get("/tmp", {}):  # noqa: S108 - a path in a pod
            yield f"{called(thing)}: mount an emptyDir at /tmp: the root file system is read-only"
    for service in rendered.functions.values():
        container = service["spec"]["template"]["spec"]["containers"][0]
        resources = container["resources"]
        if not resources["requests"].keys() >= {"cpu", "memory"} or "memory" not in resources["limits"]:
            yield f"{called(service)}: resources lack requests.cpu, requests.memory or limits.memory"
        yield from differences(service, container, {"readinessProbe": {"httpGet": READINESS}})
        yield from differences(service, container["livenessProbe"], {"httpGet": LIVENESS})
