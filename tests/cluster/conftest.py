"""A real Kubernetes API server with Knative's kinds, one for each process of tests."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dev.kubernetes import knative
from dev.kubernetes.api import Manifest
from dev.kubernetes.control_plane import ControlPlane, Programs
from dev.kubernetes.golang import budget, program
from dev.manifests.rendering import Rendered, render
from tests.cluster.objects import an_account
from tests.cluster.sink import Sink, recording

RIGHTS = frozenset({"Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})
"""The kinds of objects that say who may do what."""

Binary = Callable[[str], Path]


@pytest.fixture(scope="session")
def binary() -> Binary:
    """A program that Go builds, by its name, from the cache or built now.

    Its tests are marked `go`: where that is missing, `make` leaves them out; who asks for them is told the reason.
    """
    deadline = time.monotonic() + budget()
    return lambda name: program(name, deadline).path


@pytest.fixture(scope="session")
def cluster(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with Knative's kinds; each test takes a name space of its own."""
    with new_cluster(binary, tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@contextmanager
def new_cluster(binary: Binary, directory: Path) -> Iterator[ControlPlane]:
    """A control plane with Knative's kinds, while the block lasts."""
    programs = Programs(binary("etcd"), binary("kube-apiserver"))
    with ControlPlane(programs, directory / "data", directory) as running:
        knative.install(running.api)
        yield running


@pytest.fixture(scope="session")
def deployed(cluster: ControlPlane) -> Rendered:
    """The production overlay, whose accounts and rights are in the cluster."""
    production = render("production")
    cluster.api.apply_all(thing for thing in production.objects if thing["kind"] in RIGHTS)
    return production


@pytest.fixture
def namespace(cluster: ControlPlane) -> str:
    """A name space of the test's own, with its default service account."""
    name = f"test-{uuid4().hex[:12]}"
    space: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.api.apply_all([space, an_account(name)])
    return name


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A sink that remembers."""
    with recording() as made:
        yield made
