"""Fixtures: both overlays, rendered once, and the facts of the code."""

from collections.abc import Mapping

import pytest

from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS, Rendered, render


@pytest.fixture(scope="session")
def overlays() -> Mapping[str, Rendered]:
    """Return the overlays by name. A test that changes an overlay copies it first."""
    return {name: render(name) for name in OVERLAYS}


@pytest.fixture(scope="session")
def project() -> Project:
    """Return the facts of this tree."""
    return Project.here()
