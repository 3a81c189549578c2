"""Objects that the schemas refuse, or that stand in no namespace: each is found out."""

import pytest

from dev.manifests.project import Project
from dev.manifests.rules_schema import objects_are_in_one_namespace, objects_are_valid
from tests.manifests.breaking import Broken, Overlays, list_of, settings, setup, the

pytestmark = pytest.mark.dev

BROKEN = (
    Broken(objects_are_valid, "a word misspelt", lambda r: setup(r).update(restartPolice="Never"), "restartPolice"),
    Broken(objects_are_valid, "a wrong type", lambda r: settings(r).update(RELAY_BATCH=1000), "RELAY_BATCH"),
    Broken(
        objects_are_valid,
        "a kind that isn't there",
        lambda r: the(r, "Job", "setup").update(kind="Jobs"),
        "find schema",
    ),
    Broken(
        objects_are_in_one_namespace,
        "no namespace",
        lambda r: the(r, "Job", "setup")["metadata"].pop("namespace"),
        "namespace None",
    ),
    Broken(
        objects_are_in_one_namespace, "twice", lambda r: list_of(r).append(the(r, "Job", "setup")), "is there twice"
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
