"""Knative's admission accepts our manifests by rules beyond the schemas."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from dev.manifests.rendering import OVERLAYS, SERVICE, SOURCES, Rendered, render
from tests.cluster.conftest import Binary, new_cluster
from tests.cluster.test_overlays import Change, applied_to, changed
from tests.cluster.webhooks import EVENTING, SERVING, admission
from tests.kubernetes.api import Refused
from tests.kubernetes.control_plane import ControlPlane
from tests.manifests import breaking

pytestmark = [pytest.mark.go, pytest.mark.dev]


@pytest.fixture(scope="module")
def knative(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Yield a separate cluster: without its webhooks, a cluster would refuse all of Knative's objects later."""
    logs: Path = tmp_path_factory.mktemp("webhooks")
    with new_cluster(binary, logs) as cluster:
        processes = [
            admission(webhook, binary(webhook.program), cluster, log=logs / f"{webhook.program}.log")
            for webhook in (SERVING, EVENTING)
        ]
        for process in processes:
            process.spawn()
        for process in processes:
            process.wait_ready()
        yield cluster
        for process in processes:
            process.kill()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_knative_accepts_every_object_of_an_overlay(knative: ControlPlane, overlay: str) -> None:
    rendered = render(overlay)
    with applied_to(knative, rendered):
        for service in rendered.of("Service", SERVICE):
            assert "serving.knative.dev/creator" in knative.api.get(service)["metadata"]["annotations"]
        sources = [thing for thing in rendered.objects if thing["apiVersion"] == SOURCES]
        assert len(sources) >= 3
        for source in sources:
            knative.api.get(source)


REFUSED: dict[str, tuple[Change, str]] = {
    "a service account token in a Service": (
        changed(breaking.pod, automountServiceAccountToken=True),
        "automountServiceAccountToken",
    ),
    "a scale in words": (
        lambda rendered: breaking.annotations(rendered).update({"autoscaling.knative.dev/min-scale": "some"}),
        "min-scale",
    ),
    "a maximum below the minimum": (
        lambda rendered: breaking.annotations(rendered).update(
            {"autoscaling.knative.dev/min-scale": "5", "autoscaling.knative.dev/max-scale": "1"}
        ),
        "min-scale",
    ),
    "a negative concurrency": (changed(breaking.pod, containerConcurrency=-1), "containerConcurrency"),
    "a time-out above the limit": (changed(breaking.pod, timeoutSeconds=90_000), "timeoutSeconds"),
    "a folder of the node": (
        lambda rendered: breaking.pod(rendered)["volumes"].append({"name": "node", "hostPath": {"path": "/etc"}}),
        "hostPath",
    ),
    "a mount of an unknown volume": (
        lambda rendered: breaking.container(rendered)["volumeMounts"].append({"name": "more", "mountPath": "/more"}),
        "volumeMount",
    ),
    "a privileged container": (
        lambda rendered: breaking.container(rendered)["securityContext"].update(privileged=True),
        "privileged",
    ),
    "a schedule in words": (
        lambda rendered: breaking.source(rendered, "PingSource").update(schedule="every minute"),
        "schedule",
    ),
    "data that is no JSON": (
        lambda rendered: breaking.source(rendered, "PingSource").update(data="{"),
        "data",
    ),
    "a ping without a sink": (
        lambda rendered: breaking.source(rendered, "PingSource").update(sink={}),
        "sink",
    ),
    "an unknown mode": (
        lambda rendered: breaking.source(rendered, "ApiServerSource").update(mode="Everything"),
        "mode",
    ),
    "an invalid apiVersion": (
        lambda rendered: breaking.source(rendered, "ApiServerSource")["resources"][0].update(apiVersion="a/b/c"),
        "apiVersion",
    ),
}


@pytest.fixture(scope="module")
def production(knative: ControlPlane) -> Iterator[Rendered]:
    """Yield the production overlay in the cluster."""
    rendered = render("production")
    with applied_to(knative, rendered):
        yield rendered


@pytest.mark.parametrize("fault", REFUSED)
def test_knative_refuses_an_invalid_object(knative: ControlPlane, production: Rendered, fault: str) -> None:
    change, says = REFUSED[fault]
    broken = deepcopy(production)
    change(broken)
    (wrong,) = [thing for thing, was in zip(broken.objects, production.objects, strict=True) if thing != was]
    with pytest.raises(Refused, match=says) as refused:
        knative.api.apply(wrong, dry_run=True)
    assert "admission webhook" in str(refused.value)
