"""A real API server with Knative's kinds accepts our manifests and refuses invalid objects."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest

from dev.manifests.rendering import OVERLAYS, Rendered, render
from tests.kubernetes.api import Manifest, Refused
from tests.kubernetes.control_plane import ControlPlane
from tests.manifests import breaking

pytestmark = [pytest.mark.go, pytest.mark.dev]

Change = Callable[[Rendered], object]
"""A function that breaks a rendered overlay."""


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    """Return a rendered overlay."""
    return render(request.param)


@pytest.fixture(scope="module")
def applied(cluster: ControlPlane, overlay: Rendered) -> Iterator[Rendered]:
    """Yield a rendered overlay in the cluster."""
    with applied_to(cluster, overlay):
        yield overlay


@contextmanager
def applied_to(cluster: ControlPlane, overlay: Rendered) -> Iterator[None]:
    """Apply all objects and delete them after the block. A name space stays: its controller is missing."""
    cluster.api.apply_all(overlay.objects)
    try:
        yield
    finally:
        for thing in reversed(overlay.objects):
            if thing["kind"] != "Namespace":
                cluster.api.delete(thing)


def test_the_server_accepts_every_object_and_keeps_its_fields(cluster: ControlPlane, applied: Rendered) -> None:
    for thing in applied.objects:
        kept = cluster.api.get(thing)
        given = {name: part for name, part in thing.items() if name != "stringData"}  # kept as base64 in `data`
        assert not _lost(given, kept), f"{thing['kind']} {thing['metadata']['name']}"


def _lost(given: Any, kept: Any, path: str = "") -> list[str]:
    """Return the members of `given` that are not in `kept`: the server drops unknown members silently."""
    if isinstance(given, dict):
        if not isinstance(kept, dict):
            return [path]
        return [line for name, part in given.items() for line in _lost(part, kept.get(name), f"{path}.{name}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) <= len(kept):
        return [line for index, part in enumerate(given) for line in _lost(part, kept[index], f"{path}[{index}]")]
    return [path] if given is not None and kept is None else []


def test_a_second_apply_changes_no_object(cluster: ControlPlane, applied: Rendered) -> None:
    """A deployment must not make a new revision of an unchanged object."""
    for thing in applied.objects:
        before, after = cluster.api.get(thing), cluster.api.apply(thing)
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], thing["metadata"]["name"]


def test_its_pods_keep_pod_securitys_restricted_rules(cluster: ControlPlane, namespace: str) -> None:
    """The server's admission checks `restricted` on the pods of our functions, of setup and of the operator."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.api.change(_space(namespace), {"metadata": {"labels": label}})
    production = render("production")
    checked = 0
    for thing, spec in production.pods():
        pod = _pod(namespace, thing["metadata"]["name"], spec)
        cluster.api.create(pod, dry_run=True)
        checked += 1
        pod["spec"]["containers"][0]["securityContext"].pop("runAsNonRoot")
        with pytest.raises(Refused, match='violates PodSecurity "restricted'):
            cluster.api.create(pod, dry_run=True)
    assert checked == len(production.functions) + 2


def _space(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _pod(namespace: str, name: str, spec: Any) -> Manifest:
    """Return a pod of this template for an existing account. Knative adds the container's name and the probes' port."""
    container = {"name": "user-container", **deepcopy(spec["containers"][0])}
    for probe in ("readinessProbe", "livenessProbe"):
        if probe in container:
            container[probe]["httpGet"].setdefault("port", 8080)
    kept = {"volumes": spec["volumes"], "automountServiceAccountToken": False, "containers": [container]}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": kept}


def changed(part: Callable[[Rendered], Any], **members: Any) -> Change:
    return lambda rendered: part(rendered).update(members)


MUTATED: dict[str, tuple[Change, str]] = {
    "an unknown field of a Service": (changed(breaking.pod, timeoutseconds=30), "timeoutseconds"),
    "a Service without a container": (breaking.without(breaking.pod, "containers"), "containers: Required"),
    "a Service with words for a number": (changed(breaking.pod, containerConcurrency="many"), "containerConcurrency"),
    "a privileged container": (
        lambda rendered: breaking.container(rendered)["securityContext"].update(privileged="yes"),
        "privileged",
    ),
    "a KafkaSource without topics": (breaking.without(breaking.source, "topics"), "topics: Required"),
    "a KafkaSource without servers": (breaking.without(breaking.source, "bootstrapServers"), "bootstrapServers"),
    "retries in words": (changed(breaking.delivery, retry="many"), "retry"),
    "a misspelt delivery": (changed(breaking.delivery, backofDelay="PT1S"), "backofDelay"),
    "a dead-letter sink without a name": (
        lambda rendered: breaking.delivery(rendered)["deadLetterSink"]["ref"].pop("name"),
        "name: Required",
    ),
    "a schedule that is a number": (
        lambda rendered: breaking.source(rendered, "PingSource").update(schedule=5),
        "schedule",
    ),
    "a Job with an endless restart": (changed(breaking.setup, restartPolicy="Always"), "restartPolicy"),
    "a misspelt field of a Job": (changed(breaking.setup, restartPolice="Never"), "restartPolice"),
    "a setting that is a number": (changed(breaking.settings, RELAY_BATCH=1000), "RELAY_BATCH"),
    "a port above 65535": (
        lambda rendered: breaking.the(rendered, "NetworkPolicy", "store")["spec"]["egress"][0]["ports"][0].update(
            port=70_000
        ),
        "port",
    ),
    "a name with an underscore": (
        lambda rendered: breaking.the(rendered, "ServiceAccount", "store")["metadata"].update(name="st_ore"),
        "metadata.name",
    ),
}


@pytest.mark.parametrize("fault", MUTATED)
def test_the_server_refuses_an_invalid_object(cluster: ControlPlane, applied: Rendered, fault: str) -> None:
    change, says = MUTATED[fault]
    broken = deepcopy(applied)
    change(broken)
    wrong = [thing for thing, was in zip(broken.objects, applied.objects, strict=True) if thing != was]
    assert len(wrong) == 1
    with pytest.raises(Refused, match=says.replace(".", r"\.")):
        cluster.api.apply(wrong[0], dry_run=True)
