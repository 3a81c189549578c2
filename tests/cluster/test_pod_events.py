"""Real pods reach the running `pod_events` through Knative's adapter, with the rights of our manifests.

`LIVES` lists the expected events of each life by hand.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from dev.manifests.rendering import Rendered
from dev.process.child import Child, wait_until
from tests.cluster.adapters import receive_adapter
from tests.cluster.conftest import Binary
from tests.cluster.kubelet import Kubelet, a_pod
from tests.cluster.timelines import come_to_be, told
from tests.helpers import View
from tests.kubernetes.api import Manifest
from tests.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.go, pytest.mark.guarantee("G6")]

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


def deadline_exceeded(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.run(pod)
    kubelet.fail(pod, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")


def unschedulable_then_scheduled(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.find_no_node(pod, "0/3 nodes are available: 3 Insufficient memory.")
    kubelet.bind(pod)
    kubelet.run(pod)


def removed_while_running(kubelet: Kubelet, pod: Manifest) -> None:
    kubelet.bind(pod)
    kubelet.run(pod)
    kubelet.delete(pod)
    kubelet.remove(pod)


RAN = ["created", "scheduled", "initialized", "running"]

LIVES: dict[Life, list[str]] = {
    completed: [*RAN, "container_terminated main 0 completed 0", "succeeded"],
    exits_with_1: [*RAN, "container_terminated main 0 error_exit 1", "failed main error_exit 1"],
    out_of_memory: [*RAN, "container_terminated main 0 oom_killed 137", "failed main oom_killed 137"],
    no_image: [
        *("created", "scheduled", "initialized"),
        *("container_waiting main 0 image_pull", "container_waiting main 0 image_pull"),
    ],
    evicted: ["created", "scheduled", "failed evicted"],
    deadline_exceeded: [*RAN, "failed deadline_exceeded"],
    unschedulable_then_scheduled: ["created", "unschedulable", "scheduled", "initialized", "running"],
    removed_while_running: [*RAN, "terminating", "deleted watched"],
}


@pytest.fixture
def source(cluster: ControlPlane, deployed: Rendered) -> Manifest:
    """Return the ApiServerSource of our manifests, in the cluster."""
    (found,) = deployed.of("ApiServerSource")
    return cluster.api.apply(found)


@pytest.fixture
def adapter(cluster: ControlPlane, source: Manifest, flow: View, binary: Binary, tmp_path: Path) -> Iterator[Child]:
    """Yield the source's adapter, not started. Its sink is the running function."""
    program, url = binary("apiserver_receive_adapter"), flow.stack.pod_events_url
    made = receive_adapter(program, cluster, source, url, log=tmp_path / "adapter.log")
    yield made
    made.kill()


@pytest.fixture
def watched(cluster: ControlPlane, namespace: str, flow: View, adapter: Child) -> ControlPlane:
    """Return a cluster with an adapter that sends its pods to the running function."""
    adapter.start()
    numbers = count()
    assert wait_until(lambda: _is_published(cluster, flow, a_pod(namespace, f"canary-{next(numbers)}")), within=60.0)
    return cluster


def _is_published(cluster: ControlPlane, flow: View, pod: Manifest) -> bool:
    """Return True if a new pod has an event soon. The adapter sends no change before the end of its first list."""
    uid = cluster.api.create(pod)["metadata"]["uid"]
    return wait_until(lambda: bool(told(flow, "events", uid)), within=1.0)


@pytest.mark.guarantee("R13", "R14", "R15", "R16", "R17")
def test_real_pods_have_their_timelines_in_both_collections(watched: ControlPlane, namespace: str, flow: View) -> None:
    kubelet, uids = Kubelet(watched.api), {}
    for life in LIVES:
        pod = a_pod(namespace, life.__name__.replace("_", "-"))
        uids[life] = watched.api.create(pod)["metadata"]["uid"]
        life(kubelet, pod)
    for life, expected in LIVES.items():
        assert come_to_be(flow, uids[life], expected), (life.__name__, told(flow, "events", uids[life]))


@pytest.mark.guarantee("R21")
def test_the_events_of_a_real_pod_are_found_with_its_execution(
    watched: ControlPlane, namespace: str, flow: View
) -> None:
    work = f"execution-{uuid4()}"
    pod = a_pod(namespace, "work")
    pod["metadata"]["labels"]["twofold.dev/aggregate-id"] = work
    watched.api.create(pod)
    completed(Kubelet(watched.api), pod)
    found = wait_until(lambda: flow.database.events.count_documents({"aggregate_id": work}) == 6, within=30.0)
    assert found
