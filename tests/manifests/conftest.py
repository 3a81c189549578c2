"""Both overlays, rendered once, and the project that they deploy."""

from collections.abc import Mapping

import pytest

from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS, Rendered, render


@pytest.fixture(scope="session")
def overlays() -> Mapping[str, Rendered]:
    """By name; a test that changes one copies it first."""
    return {name: render(name) for name in OVERLAYS}


@pytest.fixture(scope="session")
def project() -> Project:
    """This tree."""
    return Project.here()
