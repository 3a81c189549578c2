"""What Skaffold itself makes of skaffold.yaml: no cluster and no registry is asked."""

import json
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.functions import plain_environment
from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS, SERVICE, Object, kubectl, render
from dev.paths import ROOT
from tests.cluster.conftest import Binary

pytestmark = [pytest.mark.go, pytest.mark.dev]

RUN = "skaffold.dev/run-id"
SILENT = {"global": {"collect-metrics": False, "update-check": False}}

Skaffold = Callable[..., str]


@pytest.fixture
def skaffold(binary: Binary, tmp_path: Path) -> Skaffold:
    """Runs Skaffold in this tree, as a user who was never here, and returns what it printed."""
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
    """The objects of a profile once every image is built, with the label of a run."""
    built = [{"imageName": name, "tag": _built(name)} for name in Project.here().artifacts]
    (tmp_path / "built.json").write_text(json.dumps({"builds": built}))

    def objects(profile: str) -> list[Object]:
        images = ("--build-artifacts", str(tmp_path / "built.json"), "--digest-source", "tag")
        said = skaffold("render", "--profile", profile, "--offline=true", "--label", f"{RUN}=7", *images)
        return [found for found in yaml.safe_load_all(said) if found]

    return objects


def _built(image: str) -> str:
    return f"registry.example/{image}:built"


@pytest.mark.parametrize("profile", OVERLAYS)
def test_it_reads_the_file_as_we_do(skaffold: Skaffold, profile: str) -> None:
    read = yaml.safe_load(skaffold("diagnose", "--yaml-only", "--profile", profile))
    artifacts = {found["image"]: found["docker"]["buildArgs"]["FUNCTION"] for found in read["build"]["artifacts"]}
    assert artifacts == Project.here().artifacts
    assert [Path(path).name for path in read["manifests"]["kustomize"]["paths"]] == [profile]


@pytest.mark.parametrize("profile", OVERLAYS)
def test_each_of_our_images_becomes_the_one_that_was_built(
    rendered: Callable[[str], list[Object]], profile: str
) -> None:
    ours = Project.here().artifacts
    wanted = deepcopy(list(render(profile).objects))
    for thing in wanted:
        for container in _containers(thing):
            name = container["image"].partition(":")[0]
            container["image"] = _built(name) if name in ours else container["image"]
    made = [_without_run(thing) for thing in rendered(profile)]
    assert sorted(map(_written, made)) == sorted(map(_written, wanted))


def test_a_run_alone_makes_no_new_revision(rendered: Callable[[str], list[Object]]) -> None:
    """Knative makes one whenever the pods' template changes, and each run has a label of its own."""
    services = [thing for thing in rendered("local") if thing["apiVersion"] == SERVICE]
    assert len(services) == len(render("local").functions)
    for service in services:
        assert service["metadata"]["labels"][RUN] == "7"
        assert RUN not in json.dumps(service["spec"])


def _containers(thing: Object) -> list[Any]:
    spec = thing.get("spec", {}).get("template", {}).get("spec", {})
    return [*spec.get("containers", []), *spec.get("initContainers", [])]


def _without_run(thing: Object) -> Object:
    """The object without the run's label, and without the labels that only it needed."""
    for part in (thing, thing.get("spec", {}).get("template", {})):
        labels = part.get("metadata", {}).get("labels", {})
        if labels.pop(RUN, None) and not labels:
            del part["metadata"]["labels"]
    return thing


def _written(thing: Object) -> str:
    return json.dumps(thing, sort_keys=True)
