"""Real pods, through Knative's own adapter and with the rights of our manifests, into the running `pod_events`.

What is in both collections then is written out by hand for each life.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from dev.kubernetes.adapters import receive_adapter
from dev.kubernetes.api import Manifest
from dev.kubernetes.control_plane import ControlPlane
from dev.kubernetes.pods import Kubelet, a_pod
from dev.manifests.rendering import render
from dev.processes import Child, wait_until
from tests.cluster.conftest import Binary
from tests.helpers import ARRIVES_WITHIN_S, View

pytestmark = [pytest.mark.go, pytest.mark.guarantee("G6")]

RIGHTS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")

Life = Callable[[Kubelet, Manifest], object]


def completed(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.run(pod)
    kubelet.end(pod, 0, "Completed")


def exits_with_1(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.run(pod)
    kubelet.end(pod, 1, "Error")


def out_of_memory(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.run(pod)
    kubelet.end(pod, 137, "OOMKilled")


def no_image(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.wait(pod, "ErrImagePull")
    kubelet.wait(pod, "ImagePullBackOff")


def evicted(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.fail(pod, "Evicted", "The node was low on resource: memory.")


def removed_while_running(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.run(pod)
    kubelet.delete(pod)
    kubelet.remove(pod)


LIVES: dict[Life, list[str]] = {
    completed: ["created", "scheduled", "initialized", "running", "container_terminated completed", "succeeded"],
    exits_with_1: [
        *("created", "scheduled", "initialized", "running"),
        *("container_terminated error_exit", "failed error_exit"),
    ],
    out_of_memory: [
        *("created", "scheduled", "initialized", "running"),
        *("container_terminated oom_killed", "failed oom_killed"),
    ],
    no_image: ["created", "scheduled", "initialized", "container_waiting image_pull", "container_waiting image_pull"],
    evicted: ["created", "scheduled", "failed evicted"],
    removed_while_running: ["created", "scheduled", "initialized", "running", "terminating", "deleted"],
}


@pytest.fixture(scope="module")
def source(cluster: ControlPlane) -> Manifest:
    """The ApiServerSource of our manifests, with its account and that account's rights."""
    production = render("production")
    cluster.api.apply_all(thing for thing in production.objects if thing["kind"] in RIGHTS)
    (found,) = production.of("ApiServerSource")
    return cluster.api.apply(found)


@pytest.fixture
def adapter(cluster: ControlPlane, source: Manifest, flow: View, binary: Binary, tmp_path: Path) -> Iterator[Child]:
    """The source's adapter, not started, whose sink is the running function."""
    program, url = binary("apiserver_receive_adapter"), flow.stack.pod_events_url
    made = receive_adapter(program, cluster, source, url, log=tmp_path / "adapter.log")
    yield made
    made.kill()


@pytest.fixture
def watched(cluster: ControlPlane, namespace: str, flow: View, adapter: Child) -> ControlPlane:
    """A cluster whose pods are sent to the running function."""
    adapter.start()
    numbers = count()
    assert wait_until(lambda: _is_told(cluster, flow, a_pod(namespace, f"canary-{next(numbers)}")), within=60.0)
    return cluster


def _is_told(cluster: ControlPlane, flow: View, pod: Manifest) -> bool:
    """Whether a new pod is told of soon: nothing is before the adapter's first list has ended."""
    uid = cluster.api.create(pod)["metadata"]["uid"]
    return wait_until(lambda: bool(_told(flow, "events", uid)), within=1.0)


def _told(flow: View, collection: str, uid: str) -> list[str]:
    """The facts of a pod that a collection holds, in the order of their time, each with its cause."""
    documents = flow.database[collection].find({"payload.pod_uid": uid}).sort([("timestamp", 1), ("seq", 1)])
    return [
        " ".join([document["event_type"].removeprefix("pod."), *filter(None, [document["payload"].get("cause")])])
        for document in documents
    ]


def _digests(flow: View, collection: str, uid: str) -> dict[object, bytes]:
    return {found["_id"]: found["digest"] for found in flow.database[collection].find({"payload.pod_uid": uid})}


@pytest.mark.guarantee("R13", "R14", "R15", "R16")
def test_real_pods_have_their_timelines_in_both_collections(watched: ControlPlane, namespace: str, flow: View) -> None:
    kubelet, uids = Kubelet(watched.api), {}
    for life in LIVES:
        pod = a_pod(namespace, life.__name__.replace("_", "-"))
        uids[life] = watched.api.create(pod)["metadata"]["uid"]
        life(kubelet, pod)
    for life, expected in LIVES.items():
        assert _come_to_be(flow, uids[life], expected), (life.__name__, _told(flow, "events", uids[life]))


def _come_to_be(flow: View, uid: str, facts: list[str]) -> bool:
    """Whether `events` comes to hold these facts of a pod, and the log the same events."""
    told = wait_until(lambda: sorted(_told(flow, "events", uid)) == sorted(facts), within=ARRIVES_WITHIN_S, every=0.1)
    events = _digests(flow, "events", uid)
    return told and wait_until(lambda: _digests(flow, "event_store", uid) == events, within=ARRIVES_WITHIN_S, every=0.1)


@pytest.mark.guarantee("R21")
def test_a_real_pods_events_are_found_with_its_work(watched: ControlPlane, namespace: str, flow: View) -> None:
    work = f"execution-{uuid4()}"
    pod = a_pod(namespace, "work")
    pod["metadata"]["labels"] = {"twofold.dev/aggregate-id": work}
    watched.api.create(pod)
    completed(Kubelet(watched.api), pod)
    found = wait_until(lambda: flow.database.events.count_documents({"aggregate_id": work}) == 6, within=30.0)
    assert found
