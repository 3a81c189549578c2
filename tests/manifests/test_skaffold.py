"""What can be seen of skaffold.yaml without Skaffold; tests/cluster/test_skaffold.py runs it where Go has built it."""

import shlex
from typing import Any

import pytest
import yaml

from dev.manifests.rendering import OVERLAYS
from dev.paths import ROOT
from tests.manifests.breaking import Overlays

pytestmark = pytest.mark.dev

SKAFFOLD: Any = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
HOOKS = SKAFFOLD["deploy"]["kubectl"]["hooks"]


def commands(when: str) -> list[list[str]]:
    """What kubectl is told, by hooks that a shell runs: it has the name of Skaffold's context."""
    scripts = []
    for hook in HOOKS[when]:
        *shell, script = hook["host"]["command"]
        assert shell == ["sh", "-c"]
        scripts.append(shlex.split(script))
    return scripts


def told(command: list[str], *verb: str) -> bool:
    """Whether it is kubectl that is told so."""
    return command[0] == "kubectl" and command[5 : 5 + len(verb)] == list(verb)


def test_each_profile_is_an_overlay() -> None:
    profiles = {profile["name"]: profile["manifests"]["kustomize"]["paths"] for profile in SKAFFOLD["profiles"]}
    assert profiles == {name: [f"knative/overlays/{name}"] for name in OVERLAYS}


def test_one_dockerfile_builds_every_image_and_changed_files_go_into_each() -> None:
    for artifact in SKAFFOLD["build"]["artifacts"]:
        assert artifact["docker"]["dockerfile"] == "Dockerfile"
        assert artifact["sync"] == SKAFFOLD["build"]["artifacts"][0]["sync"]
        assert "context" not in artifact, "the whole tree, by default"


def test_it_waits_for_every_knative_object_and_for_set_up(overlays: Overlays) -> None:
    """Skaffold itself can't tell when one of these is ready."""
    kinds = {
        f"{thing['kind'].lower()}s.{thing['apiVersion'].partition('/')[0]}"
        for rendered in overlays.values()
        for thing in rendered.objects
        if ".knative.dev/" in thing["apiVersion"]
    }
    waited = {command[6] for command in commands("after") if told(command, "wait")}
    assert waited == kinds | {"job/setup"}


def test_the_job_of_the_last_deployment_goes_before_the_next(overlays: Overlays) -> None:
    """A Job can't be changed."""
    jobs = {thing["metadata"]["name"] for rendered in overlays.values() for thing in rendered.of("Job")}
    removed = {command[7] for command in commands("before") if told(command, "delete", "job")}
    assert removed == jobs


@pytest.mark.parametrize("when", HOOKS)
def test_hooks_act_on_the_cluster_that_skaffold_deploys_to(when: str) -> None:
    """`skaffold --kube-context` need not be what kubectl would take by itself."""
    for command in commands(when):
        assert command[:5] == ["kubectl", "--context", "$SKAFFOLD_KUBE_CONTEXT", "--namespace", "twofold"]
