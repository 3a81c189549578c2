"""Skaffold reads skaffold.yaml and renders the manifests, without a cluster and without a registry."""

import json
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS, SERVICE, Object, kubectl, render
from dev.paths import ROOT
from dev.process.child import plain_environment
from tests.cluster.conftest import Binary

pytestmark = [pytest.mark.go, pytest.mark.dev]

RUN = "skaffold.dev/run-id"
SILENT = {"global": {"collect-metrics": False, "update-check": False}}

Skaffold = Callable[..., str]


@pytest.fixture
def skaffold(binary: Binary, tmp_path: Path) -> Skaffold:
    """Return a function that runs Skaffold in this tree for a new user and returns its output."""
    program = binary("skaffold")
    config = tmp_path / ".skaffold" / "config"
    config.parent.mkdir()
    config.write_text(json.dumps(SILENT))  # JSON is YAML
    environment = plain_environment() | {"HOME": str(tmp_path)}
    environment["PATH"] = f"{Path(kubectl()).parent}:{environment['PATH']}"

    def run(*arguments: str) -> str:
        command = [str(program), *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


@pytest.fixture
def rendered(skaffold: Skaffold, tmp_path: Path) -> Callable[[str], list[Object]]:
    """Return a function from a profile to its objects, with built images and the label of a run."""
    built = [{"imageName": name, "tag": _built(name)} for name in Project.here().artifacts]
    (tmp_path / "built.json").write_text(json.dumps({"builds": built}))

    def objects(profile: str) -> list[Object]:
        images = ("--build-artifacts", str(tmp_path / "built.json"), "--digest-source", "tag")
        rendered = skaffold("render", "--profile", profile, "--offline=true", "--label", f"{RUN}=7", *images)
        return [found for found in yaml.safe_load_all(rendered) if found]

    return objects


def _built(image: str) -> str:
    return f"registry.example/{image}:built"


@pytest.mark.parametrize("profile", OVERLAYS)
def test_skaffold_reads_the_same_artifacts_as_our_rules(skaffold: Skaffold, profile: str) -> None:
    read = yaml.safe_load(skaffold("diagnose", "--yaml-only", "--profile", profile))
    artifacts = {found["image"]: found["docker"]["buildArgs"]["FUNCTION"] for found in read["build"]["artifacts"]}
    assert artifacts == Project.here().artifacts
    assert [Path(path).name for path in read["manifests"]["kustomize"]["paths"]] == [profile]


@pytest.mark.parametrize("profile", OVERLAYS)
def test_each_image_of_ours_becomes_its_built_image(rendered: Callable[[str], list[Object]], profile: str) -> None:
    ours = Project.here().artifacts
    wanted = deepcopy(list(render(profile).objects))
    for thing in wanted:
        for container in _containers(thing):
            name = container["image"].partition(":")[0]
            container["image"] = _built(name) if name in ours else container["image"]
    made = [_without_run(thing) for thing in rendered(profile)]
    assert sorted(map(_written, made)) == sorted(map(_written, wanted))


def test_a_second_run_makes_no_new_revision(rendered: Callable[[str], list[Object]]) -> None:
    """Knative makes a revision for a changed pod template, and each run has a new label."""
    services = [thing for thing in rendered("local") if thing["apiVersion"] == SERVICE]
    assert len(services) == len(render("local").functions)
    for service in services:
        assert service["metadata"]["labels"][RUN] == "7"
        assert RUN not in json.dumps(service["spec"])


def _containers(thing: Object) -> list[Any]:
    spec = thing.get("spec", {}).get("template", {}).get("spec", {})
    return [*spec.get("containers", []), *spec.get("initContainers", [])]


def _without_run(thing: Object) -> Object:
    """Return the object without the run's label, and without a `labels` field that held only this label."""
    for part in (thing, thing.get("spec", {}).get("template", {})):
        labels = part.get("metadata", {}).get("labels", {})
        if labels.pop(RUN, None) and not labels:
            del part["metadata"]["labels"]
    return thing


def _written(thing: Object) -> str:
    return json.dumps(thing, sort_keys=True)
