"""What the source missed, found by listing: woken by Knative's own PingSource adapter, with our manifests' rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dev.functions import FunctionProcess
from dev.kubernetes.adapters import mark_ready, ping_adapter
from dev.kubernetes.api import Manifest
from dev.kubernetes.control_plane import ControlPlane
from dev.kubernetes.pods import Kubelet, a_pod
from dev.manifests.rendering import Rendered
from tests.cluster.conftest import Binary
from tests.cluster.timelines import come_to_be, told
from tests.conftest import Spawner
from tests.helpers import View

pytestmark = [pytest.mark.go, pytest.mark.guarantee("G6")]

EVERY_SECOND = "* * * * * *"
RAN = ["created", "scheduled", "initialized", "running"]


class Waker:
    """Knative's adapter of PingSources, and our PingSource with another schedule."""

    def __init__(self, cluster: ControlPlane, deployed: Rendered, program: Path, log: Path) -> None:
        self._cluster = cluster
        self._adapter = ping_adapter(program, cluster, log=log)
        named = deployed.named("PingSource", "pod-events")
        assert named is not None
        self._source: Manifest = named | {"spec": named["spec"] | {"schedule": EVERY_SECOND}}

    @contextmanager
    def wakes(self, function: FunctionProcess) -> Iterator[None]:
        """Every second, while the block lasts."""
        self._cluster.api.apply(self._source)
        mark_ready(self._cluster.api, self._source, function.url)
        self._adapter.start()
        try:
            yield
        finally:
            self._adapter.terminate()  # in order: else its successor would have to wait until its lease is over
            self._cluster.api.delete(self._source)


@pytest.fixture
def waker(cluster: ControlPlane, deployed: Rendered, binary: Binary, tmp_path: Path) -> Waker:
    return Waker(cluster, deployed, binary("mtping"), tmp_path / "mtping.log")


def _lister(cluster: ControlPlane, spawn: Spawner, account: str) -> FunctionProcess:
    """A process of the function that is this account in the cluster, and asks for two pods at a time."""
    settings = {"PODS_CLUSTER": f"test-{uuid4()}", "PODS_PAGE": "2"}
    return spawn("pod_events", KUBECONFIG=str(cluster.kubeconfig("twofold", account)), **settings)


@pytest.fixture
def lister(cluster: ControlPlane, deployed: Rendered, spawn: Spawner) -> FunctionProcess:
    """The function with the rights that our manifests give it."""
    return _lister(cluster, spawn, "pod-events")


def test_pods_that_nobody_watched_have_their_timelines(
    cluster: ControlPlane, namespace: str, flow: View, lister: FunctionProcess, waker: Waker
) -> None:
    kubelet, uids = Kubelet(cluster.api), []
    for number in range(5):
        pod = a_pod(namespace, f"work-{number}")
        uids.append(cluster.api.create(pod)["metadata"]["uid"])
        kubelet.bind(pod)
        kubelet.run(pod)
        kubelet.end(pod, number, "Error" if number else "Completed")
    with waker.wakes(lister):
        assert come_to_be(flow, uids[0], [*RAN, "container_terminated main 0 completed 0", "succeeded"])
        for code, uid in enumerate(uids[1:], start=1):
            failed = [f"container_terminated main 0 error_exit {code}", f"failed main error_exit {code}"]
            assert come_to_be(flow, uid, [*RAN, *failed])


def test_a_pod_that_is_removed_unseen_is_told_as_gone(
    cluster: ControlPlane, namespace: str, flow: View, lister: FunctionProcess, waker: Waker
) -> None:
    kubelet = Kubelet(cluster.api)
    going, staying = a_pod(namespace, "going"), a_pod(namespace, "staying")
    uids = [cluster.api.create(pod)["metadata"]["uid"] for pod in (going, staying)]
    for pod in (going, staying):
        kubelet.bind(pod)
        kubelet.run(pod)
    with waker.wakes(lister):
        assert all(come_to_be(flow, uid, RAN) for uid in uids)
        kubelet.remove(going)
        cluster.api.create(going)  # another one of its name, as a StatefulSet makes it
        assert come_to_be(flow, uids[0], [*RAN, "deleted reconciled"])
    assert come_to_be(flow, uids[1], RAN)


def test_a_pod_that_a_narrowed_selector_leaves_out_is_not_gone(
    cluster: ControlPlane, deployed: Rendered, namespace: str, flow: View, spawn: Spawner
) -> None:
    """It was listed before; the API server is asked for it by its name, and has it."""
    uids = {}
    for name, labels in (("chosen", {"app": namespace}), ("left-out", {"app": "other"})):
        pod = a_pod(namespace, name)
        pod["metadata"]["labels"] = labels
        uids[name] = cluster.api.create(pod)["metadata"]["uid"]
    kubeconfig = str(cluster.kubeconfig("twofold", "pod-events"))
    settings = {"KUBECONFIG": kubeconfig, "PODS_CLUSTER": f"test-{uuid4()}", "PODS_NAMESPACE": namespace}
    assert _listed(flow, spawn("pod_events", **settings))["listed"] == 2
    narrowed = _listed(flow, spawn("pod_events", **settings, PODS_SELECTOR=f"app={namespace}"))
    assert (narrowed["listed"], narrowed["unlisted"], narrowed["gone"]) == (1, 1, 0)
    assert all(told(flow, "events", uid) == ["created"] for uid in uids.values())


def _listed(flow: View, function: FunctionProcess) -> dict[str, Any]:
    answer = flow.http.post(function.url, headers={"ce-type": "dev.knative.sources.ping"}, content=b"{}")
    run: dict[str, Any] = answer.json()
    return run


def test_without_the_right_to_list_it_says_what_is_missing(
    cluster: ControlPlane, deployed: Rendered, flow: View, spawn: Spawner
) -> None:
    function = _lister(cluster, spawn, "store")
    answer = flow.http.post(function.url, headers={"ce-type": "dev.knative.sources.ping"}, content=b"{}")
    assert answer.status_code == 503
    assert "the service account needs the verb list on pods" in answer.json()["detail"]
