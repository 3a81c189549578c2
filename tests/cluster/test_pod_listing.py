"""What the source missed, found by listing: woken by Knative's own PingSource adapter, with our manifests' rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dev.functions import FunctionProcess
from dev.kubernetes.adapters import mark_ready, ping_adapter
from dev.kubernetes.api import Manifest
from dev.kubernetes.control_plane import ControlPlane
from dev.kubernetes.pods import Kubelet, a_pod
from dev.manifests.rendering import Rendered
from tests.cluster.conftest import Binary
from tests.cluster.timelines import come_to_be
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
    failed = [*RAN, "container_terminated error_exit", "failed error_exit"]
    with waker.wakes(lister):
        assert come_to_be(flow, uids[0], [*RAN, "container_terminated completed", "succeeded"])
        assert all(come_to_be(flow, uid, failed) for uid in uids[1:])


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
        assert come_to_be(flow, uids[0], [*RAN, "deleted"])
    deleted = flow.database.events.find_one({"payload.pod_uid": uids[0], "event_type": "pod.deleted"})
    assert deleted["payload"]["observed"] == "reconciled"
    assert come_to_be(flow, uids[1], RAN)


def test_without_the_right_to_list_it_says_what_is_missing(
    cluster: ControlPlane, deployed: Rendered, flow: View, spawn: Spawner
) -> None:
    function = _lister(cluster, spawn, "store")
    answer = flow.http.post(function.url, headers={"ce-type": "dev.knative.sources.ping"}, content=b"{}")
    assert answer.status_code == 503
    assert "the service account needs the verb list on pods" in answer.json()["detail"]
