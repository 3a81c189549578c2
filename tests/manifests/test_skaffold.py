"""Checks of skaffold.yaml without Skaffold. tests/cluster/test_skaffold.py runs Skaffold after a build by Go."""

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
    """Return the kubectl commands of the hooks. A shell runs each hook, and knows the name of Skaffold's context."""
    scripts = []
    for hook in HOOKS[when]:
        *shell, script = hook["host"]["command"]
        assert shell == ["sh", "-c"]
        scripts.append(shlex.split(script))
    return scripts


def has_verb(command: list[str], *verb: str) -> bool:
    """Tell whether a command is kubectl with this verb."""
    return command[0] == "kubectl" and command[5 : 5 + len(verb)] == list(verb)


def test_each_profile_is_an_overlay() -> None:
    profiles = {profile["name"]: profile["manifests"]["kustomize"]["paths"] for profile in SKAFFOLD["profiles"]}
    assert profiles == {name: [f"knative/overlays/{name}"] for name in OVERLAYS}


def test_one_dockerfile_builds_every_image_and_changed_files_go_into_each_function() -> None:
    for artifact in SKAFFOLD["build"]["artifacts"]:
        assert artifact["docker"]["dockerfile"] == "Dockerfile"
        if artifact["image"] != "twofold-operator":  # no process in it keeps code in memory
            assert artifact["sync"] == SKAFFOLD["build"]["artifacts"][0]["sync"]
        assert "context" not in artifact, "the default is the whole tree"


def test_skaffold_waits_for_every_knative_object_and_for_the_set_up(overlays: Overlays) -> None:
    """Skaffold itself does not know whether a Knative object is ready."""
    kinds = {
        f"{thing['kind'].lower()}s.{thing['apiVersion'].partition('/')[0]}"
        for rendered in overlays.values()
        for thing in rendered.objects
        if ".knative.dev/" in thing["apiVersion"]
    }
    waited = {command[6] for command in commands("after") if has_verb(command, "wait")}
    assert waited == kinds | {"job/setup"}


def test_the_job_of_the_last_deployment_is_deleted_before_the_next(overlays: Overlays) -> None:
    """Kubernetes refuses a change of a Job."""
    jobs = {thing["metadata"]["name"] for rendered in overlays.values() for thing in rendered.of("Job")}
    removed = {command[7] for command in commands("before") if has_verb(command, "delete", "job")}
    assert removed == jobs


@pytest.mark.parametrize("when", HOOKS)
def test_hooks_act_on_the_cluster_that_skaffold_deploys_to(when: str) -> None:
    """`skaffold --kube-context` may differ from the default context of kubectl."""
    for command in commands(when):
        assert command[:5] == ["kubectl", "--context", "$SKAFFOLD_KUBE_CONTEXT", "--namespace", "twofold"]
