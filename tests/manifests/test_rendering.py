"""A changed value in the tree reaches the pods."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.manifests.check import complaints
from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS, Rendered, render
from dev.paths import ROOT
from tests.manifests.breaking import Overlays

pytestmark = pytest.mark.dev


def templates(rendered: Rendered) -> dict[str, Any]:
    """Return the pod templates of functions, Jobs and Deployments: a changed template starts new pods."""
    others = [*rendered.of("Job"), *rendered.of("Deployment")]
    made = rendered.functions | {thing["metadata"]["name"]: thing for thing in others}
    return {name: thing["spec"]["template"] for name, thing in made.items()}


@pytest.mark.parametrize(
    ("file", "was", "now"),
    [
        ("base/settings.yaml", 'RELAY_BATCH: "1000"', 'RELAY_BATCH: "10"'),
        ("overlays/production/addresses.yaml", "AUTH_AUDIENCE: twofold", "AUTH_AUDIENCE: shop"),
        ("overlays/production/mongodb.yaml", "replicaSet=rs0", "replicaSet=rs1"),
        ("overlays/local/settings.yaml", "replicaSet=rs0", "replicaSet=rs1"),
    ],
)
def test_a_changed_value_makes_a_new_revision_of_every_function(
    overlays: Overlays, tmp_path: Path, file: str, was: str, now: str
) -> None:
    """A pod reads its settings at its start only."""
    shutil.copytree(ROOT / "knative", tmp_path / "knative")
    changed = tmp_path / "knative" / file
    text = changed.read_text()
    assert text.count(was) == 1
    changed.write_text(text.replace(was, now))
    for overlay in OVERLAYS:
        before, after = templates(overlays[overlay]), templates(render(overlay, tmp_path))
        concerned = f"/{overlay}/" in f"/{file}" or file.startswith("base/")
        assert before.keys() == after.keys()
        assert {before[name] != after[name] for name in before} == {concerned}


@pytest.mark.fault("D2")
def test_the_patch_of_docs_deploy_makes_admin_public(tmp_path: Path, project: Project) -> None:
    """The rules accept the choice. Without the annotation, they would not."""
    shutil.copytree(ROOT / "knative", tmp_path / "knative")
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    (patch,) = [block for block in blocks if "twofold.dev~1public" in block]
    production = tmp_path / "knative/overlays/production"
    (production / "public.yaml").write_text(patch)
    target = "{kind: Service, group: serving.knative.dev, name: admin}"
    with (production / "kustomization.yaml").open("a") as kustomization:
        kustomization.write(f"  - path: public.yaml\n    target: {target}\n")
    rendered = render("production", tmp_path)
    labels = rendered.functions["admin"]["metadata"]["labels"]
    assert "networking.knative.dev/visibility" not in labels
    assert complaints([rendered], project) == []


@pytest.mark.fault("C9")
@pytest.mark.parametrize("arguments", [[], ["staging"]], ids=["none", "unknown"])
def test_render_asks_for_an_overlay(arguments: list[str]) -> None:
    """Two overlays in one stream, piped into kubectl, overwrite each other."""
    run = rendering(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert "make render OVERLAY=local or OVERLAY=production" in run.stderr


@pytest.mark.fault("C9")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_render_prints_one_overlay(overlay: str) -> None:
    printed = [thing for thing in yaml.safe_load_all(rendering(overlay).stdout) if thing]
    names = [(thing["kind"], thing["apiVersion"], thing["metadata"]["name"]) for thing in printed]
    assert len(names) == len(set(names)) > 30


def rendering(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dev.manifests", "render", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
