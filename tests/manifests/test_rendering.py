"""A changed value in the tree reaches the pods."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from dev.manifests.rendering import OVERLAYS, Rendered, render
from dev.paths import ROOT
from tests.manifests.breaking import Overlays

pytestmark = pytest.mark.dev


def templates(rendered: Rendered) -> dict[str, Any]:
    """Return the pod templates of functions and Jobs: Knative starts new pods for a changed template."""
    made = rendered.functions | {job["metadata"]["name"]: job for job in rendered.of("Job")}
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
