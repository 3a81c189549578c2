"""A list of the pods finds missed changes. Knative's PingSource adapter starts it, with our manifests' rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dev.manifests.rendering import Rendered
from dev.stack.functions import FunctionProcess
from tests.cluster.adapters import ping_adapter, set_ready
from tests.cluster.conftest import Binary
from tests.cluster.kubelet import Kubelet, a_pod
from tests.cluster.timelines import come_to_be, told
from tests.conftest import Spawner
from tests.helpers import View
from tests.kubernetes.api import Manifest
from tests.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.go, pytest.mark.guarantee("G6")]

EVERY_SECOND = "* * * * * *"
RAN = ["created", "scheduled", "initialized", "running"]


class Waker:
    """Knative's adapter of PingSources, and our PingSource with a schedule of seconds."""

    def __init__(self, cluster: ControlPlane, deployed: Rendered, program: Path, log: Path) -> None:
        self._cluster = cluster
        self._adapter = ping_adapter(program, cluster, log=log)
        named = deployed.named("PingSource", "pod-events")
        assert named is not None
        self._source: Manifest = named | {"spec": named["spec"] | {"schedule": EVERY_SECOND}}

    @contextmanager
    def wakes(self, function: FunctionProcess) -> Iterator[None]:
        """Call the function every second for the time of the block."""
        self._cluster.api.apply(self._source)
        set_ready(self._cluster.api, self._source, function.url)
        self._adapter.start()
        try:
            yield
        finally:
            self._adapter.terminate()  # an orderly end releases the lease for the next adapter
            self._cluster.api.delete(self._source)


@pytest.fixture
def waker(cluster: ControlPlane, deployed: Rendered, binary: Binary, tmp_path: Path) -> Waker:
    return Waker(cluster, deployed, binary("mtping"), tmp_path / "mtping.log")


def _lister(cluster: ControlPlane, spawn: Spawner, account: str) -> FunctionProcess:
    """Start `pod_events` with this account's rights in the cluster and two pods on a page."""
    settings = {"PODS_CLUSTER": f"test-{uuid4()}", "PODS_PAGE": "2"}
    return spawn("pod_events", KUBECONFIG=str(cluster.kubeconfig("twofold", account)), **settings)


@pytest.fixture
def lister(cluster: ControlPlane, deployed: Rendered, spawn: Spawner) -> FunctionProcess:
    """Return the function with the rights of our manifests."""
    return _lister(cluster, spawn, "pod-events")


def test_unwatched_pods_have_their_timelines(
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


def test_a_pod_removed_between_two_lists_is_deleted_reconciled(
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
        cluster.api.create(going)  # a second pod of this name, as a StatefulSet creates it
        assert come_to_be(flow, uids[0], [*RAN, "deleted reconciled"])
    assert come_to_be(flow, uids[1], RAN)


def test_a_pod_outside_a_narrowed_selector_is_not_deleted(
    cluster: ControlPlane, deployed: Rendered, namespace: str, flow: View, spawn: Spawner
) -> None:
    """The pod was listed before. The function asks the API server for its name and finds it."""
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


def test_without_the_right_to_list_the_answer_names_the_missing_right(
    cluster: ControlPlane, deployed: Rendered, flow: View, spawn: Spawner
) -> None:
    function = _lister(cluster, spawn, "store")
    answer = flow.http.post(function.url, headers={"ce-type": "dev.knative.sources.ping"}, content=b"{}")
    assert answer.status_code == 503
    assert "the service account needs the verb list on pods" in answer.json()["detail"]
