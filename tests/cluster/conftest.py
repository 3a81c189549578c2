"""A real Kubernetes API server with Knative's kinds for each test process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dev.manifests.rendering import Rendered, render
from tests.cluster.objects import an_account
from tests.cluster.sink import Sink, recording
from tests.kubernetes import knative
from tests.kubernetes.api import Manifest
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.golang import budget, program

RIGHTS = frozenset({"Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})
"""The kinds of objects that grant rights."""

Binary = Callable[[str], Path]


@pytest.fixture(scope="session")
def binary() -> Binary:
    """Return a function from a program's name to its path. It builds a program that is not in the cache.

    Its tests have the marker `go`. `make` leaves them out on a machine without Go; pytest shows the reason.
    """
    deadline = time.monotonic() + budget()
    return lambda name: program(name, deadline)[0]


@pytest.fixture(scope="session")
def cluster(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Yield a control plane with Knative's kinds. Each test has its own name space."""
    with new_cluster(binary, tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@contextmanager
def new_cluster(binary: Binary, directory: Path) -> Iterator[ControlPlane]:
    """Run a control plane with Knative's kinds for the time of the block."""
    programs = binary("etcd"), binary("kube-apiserver")
    with ControlPlane(*programs, directory / "data", directory) as running:
        knative.install(running.api)
        yield running


@pytest.fixture(scope="session")
def deployed(cluster: ControlPlane) -> Rendered:
    """Return the production overlay. Its accounts and rights are in the cluster."""
    production = render("production")
    cluster.api.apply_all(thing for thing in production.objects if thing["kind"] in RIGHTS)
    return production


@pytest.fixture
def namespace(cluster: ControlPlane) -> str:
    """Return a new name space with its default service account."""
    name = f"test-{uuid4().hex[:12]}"
    space: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.api.apply_all([space, an_account(name)])
    return name


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Yield a sink that records its requests."""
    with recording() as made:
        yield made
