"""Rules over Knative's Services and all other pods: there, built by us, safe, probed, bounded."""

from collections.abc import Iterator
from typing import Any

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called

OPEN = frozenset({"publish", "query", "admin", "audit"})
"""What people and other systems call. Everything else is reached from inside the cluster only."""

LOCAL_SERVERS = frozenset({"mongo", "apache/kafka"})
"""The images of others, and in the local overlay alone."""

PROBE = {"path": "/healthz"}
ALWAYS_THERE = frozenset({"store", "pod_events"})
"""What a source gives up on for good, or falls behind with, while a pod starts."""

SCALE = ("min-scale", "max-scale", "metric", "target")


def each_function_has_a_service(rendered: Rendered, project: Project) -> Iterator[str]:
    """And a Service has a function, and both an image in skaffold.yaml."""
    for name in sorted(project.functions - rendered.functions.keys()):
        yield (
            f"functions/{name} has no Knative Service: write knative/base/{name}.yaml (store.yaml is an example), and "
            f"name it in knative/base/kustomization.yaml"
        )
    for name in sorted(rendered.functions.keys() - project.functions):
        yield f"knative/base/{name}.yaml has a Service, and functions/{name}/main.py is not there: add or remove"
    for name in sorted(project.functions - set(project.artifacts.values())):
        yield f"functions/{name} is not built: add an artifact with FUNCTION: {name} to skaffold.yaml"
    for image, name in sorted(project.artifacts.items()):
        if name not in project.functions:
            yield f"skaffold.yaml builds {image} for FUNCTION: {name}, and there is no functions/{name}/main.py"
    for name, service in rendered.functions.items():
        image = _image_name(_container(service)["image"])
        if project.artifacts.get(image) != name:
            yield f"{called(service)} runs {image}, which is not the image of functions/{name} in skaffold.yaml"


def images_are_ours_and_pinned(rendered: Rendered, project: Project) -> Iterator[str]:
    """Built by skaffold.yaml, at this version; only the local overlay has servers of others. Never `latest`."""
    for thing, spec in rendered.pods():
        for container in _containers(spec):
            name, _, tag = container["image"].partition(":")
            if not tag or tag == "latest":
                yield f"{called(thing)}: the image {container['image']} has no tag of its own"
            if name in project.artifacts:
                if tag != project.version:
                    yield f"{called(thing)}: the image {container['image']} is not of version {project.version}"
            elif not (rendered.overlay == "local" and name in LOCAL_SERVERS):
                yield f"{called(thing)}: skaffold.yaml builds no image {name}"


def no_pod_has_more_than_it_needs(rendered: Rendered, project: Project) -> Iterator[str]:
    """Nobody is root, may become it, or has a capability; ours can't write but to /tmp."""
    for thing, spec in rendered.pods():
        pod = spec.get("securityContext", {})
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                yield f"{called(thing)}: {name} shares the node's"
        for volume in spec.get("volumes", []):
            if "hostPath" in volume:
                yield f"{called(thing)}: the volume {volume['name']} is a folder of the node (hostPath)"
        for container in _containers(spec):
            has = pod | container.get("securityContext", {})
            where = f"{called(thing)}, {container['image']}"
            if has.get("runAsNonRoot") is not True or has.get("runAsUser") == 0:
                yield f"{where}: may run as root (runAsNonRoot)"
            if has.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: may become root (allowPrivilegeEscalation)"
            if has.get("privileged"):
                yield f"{where}: is privileged"
            if has.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{where}: keeps capabilities (drop: [ALL])"
            if has.get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{where}: has no seccomp profile (RuntimeDefault)"
            if _image_name(container["image"]) in project.artifacts:
                yield from _writes_nowhere(where, spec, container, has)


def _writes_nowhere(where: str, spec: Object, container: Object, has: Object) -> Iterator[str]:
    if has.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: its root file system can be written to (readOnlyRootFilesystem)"
    mounted = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    emptied = {volume["name"] for volume in spec.get("volumes", []) if "emptyDir" in volume}
    if mounted.get("/tmp") not in emptied:  # noqa: S108 - a path in the container
        yield f"{where}: /tmp is no emptyDir, and gunicorn's workers need it"


def only_what_people_call_is_open(rendered: Rendered, _: Project) -> Iterator[str]:
    """Sinks and timers' targets are cluster-local: who can reach them can write."""
    for name, service in rendered.functions.items():
        labels = service["metadata"].get("labels", {})
        local = labels.get("networking.knative.dev/visibility") == "cluster-local"
        if not local and name not in OPEN:
            yield f"{called(service)} can be reached from outside (networking.knative.dev/visibility: cluster-local)"
        if local and name in OPEN:
            yield f"{called(service)} can't be reached by those who call it: it is cluster-local"


def probes_ask_whether_it_answers(rendered: Rendered, _: Project) -> Iterator[str]:
    """Knative's default asks for an open port only; what doesn't answer `GET /healthz` is no help."""
    for service in rendered.functions.values():
        for probe in ("readinessProbe", "livenessProbe"):
            asked = _container(service).get(probe, {}).get("httpGet", {})
            if asked != PROBE:
                yield f"{called(service)}: {probe} is not GET {PROBE['path']}"


def scale_and_resources_are_said(rendered: Rendered, project: Project) -> Iterator[str]:
    """None is left to Knative's defaults, which differ between clusters."""
    for name, service in rendered.functions.items():
        yield from _scales(name, service, project)
    for thing, spec in rendered.pods():
        for container in spec["containers"]:
            resources = container.get("resources", {})
            if {"cpu", "memory"} - resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
                yield f"{called(thing)}: resources lack requests.cpu, requests.memory or limits.memory"


def _scales(name: str, service: Object, project: Project) -> Iterator[str]:
    template = service["spec"]["template"]
    annotations = template["metadata"].get("annotations", {})
    for said in SCALE:
        if f"autoscaling.knative.dev/{said}" not in annotations:
            yield f"{called(service)}: autoscaling.knative.dev/{said} is not said"
    if annotations.get("autoscaling.knative.dev/max-scale") == "0":
        yield f"{called(service)}: max-scale is without bounds"
    if name in ALWAYS_THERE and annotations.get("autoscaling.knative.dev/min-scale") == "0":
        yield f"{called(service)}: min-scale is 0, and its source does not wait for a pod that starts"
    for said in ("containerConcurrency", "timeoutSeconds"):
        if said not in template["spec"]:
            yield f"{called(service)}: {said} is not said"
    if name in project.gatherers and template["spec"].get("containerConcurrency", 0) != 0:
        yield f"{called(service)}: containerConcurrency is not 0, and what waits together is written at once"


def _containers(spec: Object) -> list[Any]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _container(service: Object) -> Object:
    found: Object = service["spec"]["template"]["spec"]["containers"][0]
    return found


def _image_name(image: str) -> str:
    return image.partition(":")[0]


RULES = (
    each_function_has_a_service,
    images_are_ours_and_pinned,
    no_pod_has_more_than_it_needs,
    only_what_people_call_is_open,
    probes_ask_whether_it_answers,
    scale_and_resources_are_said,
)
