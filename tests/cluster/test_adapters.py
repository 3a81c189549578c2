"""The requests of Knative's adapters, and their reaction to answers: our functions rely on these rules."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from dev.process.child import Child, wait_until
from tests.cluster.adapters import ping_adapter, receive_adapter, set_ready
from tests.cluster.conftest import Binary
from tests.cluster.kubelet import Kubelet, a_pod
from tests.cluster.objects import READS_PODS, a_ping_source, a_pod_source, a_role_for, an_account
from tests.cluster.sink import Sink
from tests.kubernetes.api import Api, Manifest
from tests.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.go, pytest.mark.dev]

LABELS = {"watched": "yes"}
PREFIX = "dev.knative.apiserver.resource."


class Watched(NamedTuple):
    """A name space with an adapter that watches its labelled pods."""

    api: Api
    namespace: str
    sink: Sink

    def pod(self, name: str, **metadata: object) -> Manifest:
        """Create a pod in the name space and bind it to a node."""
        pod = a_pod(self.namespace, name)
        pod["metadata"] |= {"labels": dict(LABELS), **metadata}
        self.api.create(pod)
        Kubelet(self.api).bind(pod)
        return pod

    def sent(self, name: str, *types: str) -> bool:
        """Return True if the adapter's requests about the pod become exactly these types."""
        return self.sink.await_requests(lambda: self.sink.types(name) == list(types))


@pytest.fixture
def watched(
    cluster: ControlPlane, namespace: str, sink: Sink, binary: Binary, tmp_path: Path
) -> Iterator[Callable[[], Watched]]:
    """Return a function that starts an adapter and waits until its watch sends changes."""
    started: list[Child] = []

    def start(mode: str = "Resource") -> Watched:
        source = a_pod_source(namespace, "pods", sink.url, LABELS, mode)
        cluster.api.apply_all([an_account(namespace, "pods"), *a_role_for("pods", namespace, READS_PODS), source])
        program = binary("apiserver_receive_adapter")
        adapter = receive_adapter(program, cluster, source, sink.url, log=tmp_path / "adapter.log")
        started.append(adapter)
        adapter.start()
        seen = Watched(cluster.api, namespace, sink)
        numbers = count()
        assert wait_until(lambda: _is_sent(seen, f"canary-{next(numbers)}"), within=30.0)
        return seen

    yield start
    for adapter in started:
        adapter.kill()


def _is_sent(seen: Watched, name: str) -> bool:
    """Return True if a new pod is sent soon. The adapter sends no change before the end of its first list."""
    seen.pod(name)
    return wait_until(lambda: bool(seen.sink.of(name)), within=0.5)


def test_it_sends_the_whole_pod_at_each_step_with_a_new_id(
    watched: Callable[[], Watched],
) -> None:
    seen = watched()
    pod, kubelet = seen.pod("work"), Kubelet(seen.api)
    kubelet.run(pod)
    kubelet.end(pod, 0, "Completed")
    assert seen.sent("work", "add", "update", "update", "update")
    requests = seen.sink.of("work")
    assert len({UUID(request.headers["ce-id"]) for request in requests}) == len(requests)
    first, last = requests[0], requests[-1]
    assert first.type == PREFIX + "add"
    assert last.object["status"]["phase"] == "Succeeded"
    assert last.object["metadata"]["managedFields"]
    named = {name: last.headers[name] for name in ("ce-kind", "ce-apiversion", "ce-name", "ce-namespace")}
    assert named == {"ce-kind": "Pod", "ce-apiversion": "v1", "ce-name": "work", "ce-namespace": seen.namespace}
    assert last.headers["ce-subject"] == f"/apis/v1/namespaces/{seen.namespace}/pods/work"
    assert last.headers["content-type"] == "application/json"


def test_it_never_sends_a_pod_from_before_its_start(
    cluster: ControlPlane, namespace: str, sink: Sink, watched: Callable[[], Watched]
) -> None:
    Watched(cluster.api, namespace, sink).pod("older")
    seen = watched()
    seen.pod("newer")
    assert seen.sent("newer", "add", "update")
    assert not sink.of("older")


def test_a_removed_pod_is_sent_with_the_time_of_its_deletion(watched: Callable[[], Watched]) -> None:
    seen = watched()
    pod = seen.pod("work")
    seen.api.delete(pod)
    seen.api.delete(pod, grace_period_s=5)
    Kubelet(seen.api).remove(pod)
    assert seen.sent("work", "add", "update", "update", "update", "update", "delete")
    grace = [request.object["metadata"].get("deletionGracePeriodSeconds") for request in seen.sink.of("work")]
    assert grace == [None, None, 30, 5, 0, 0]
    assert seen.sink.of("work")[-1].object["metadata"]["deletionTimestamp"]


@pytest.mark.parametrize("finalizers", [[], ["twofold.example/wait"]], ids=["forced", "held back"])
def test_a_removal_without_grace_has_the_time_of_its_deletion_too(
    watched: Callable[[], Watched], finalizers: list[str]
) -> None:
    seen = watched()
    pod = seen.pod("work", finalizers=finalizers)
    Kubelet(seen.api).remove(pod)
    if finalizers:
        seen.api.change(pod, {"metadata": {"finalizers": None}})
    assert seen.sink.await_requests(lambda: "delete" in seen.sink.types("work"))
    assert seen.sink.of("work")[-1].object["metadata"]["deletionTimestamp"]


def test_a_living_pod_that_leaves_the_selector_is_sent_as_deleted(watched: Callable[[], Watched]) -> None:
    seen = watched()
    pod = seen.pod("work")
    seen.api.change(pod, {"metadata": {"labels": {"watched": "no"}}})
    assert seen.sent("work", "add", "update", "delete")
    assert "deletionTimestamp" not in seen.sink.of("work")[-1].object["metadata"]
    seen.api.change(pod, {"metadata": {"labels": LABELS}})
    assert seen.sent("work", "add", "update", "delete", "add")


def test_an_ending_pod_that_leaves_the_selector_still_has_its_grace(watched: Callable[[], Watched]) -> None:
    seen = watched()
    pod = seen.pod("work")
    seen.api.delete(pod)
    seen.api.change(pod, {"metadata": {"labels": {"watched": "no"}}})
    assert seen.sent("work", "add", "update", "update", "delete")
    assert seen.sink.of("work")[-1].object["metadata"]["deletionGracePeriodSeconds"] == 30


def test_a_503_is_retried_five_times_and_a_500_never(watched: Callable[[], Watched]) -> None:
    seen = watched()
    for status, tries in ((503, 6), (500, 1), (429, 6), (408, 1)):
        name = f"answered-{status}"
        seen.sink.statuses[name] = status
        pod = a_pod(seen.namespace, name)
        pod["metadata"]["labels"] = LABELS
        seen.api.create(pod)
        seen.pod(f"after-{status}")
        assert seen.sent(f"after-{status}", "add", "update")
        requests = seen.sink.of(name)
        assert len(requests) == tries
        assert len({request.headers["ce-id"] for request in requests}) == 1


def test_reference_mode_sends_no_pod(watched: Callable[..., Watched]) -> None:
    seen = watched("Reference")
    seen.pod("work")
    assert seen.sent("work", "add", "update")
    sent = seen.sink.of("work")[0]
    assert sent.type == "dev.knative.apiserver.ref.add"
    assert sent.object == {"kind": "Pod", "namespace": seen.namespace, "name": "work", "apiVersion": "v1"}


def test_a_ping_has_an_empty_object_and_a_new_id(
    cluster: ControlPlane, namespace: str, sink: Sink, binary: Binary, tmp_path: Path
) -> None:
    source = a_ping_source(namespace, sink.url, "*/1 * * * * *")
    cluster.api.apply(source)
    set_ready(cluster.api, source, sink.url)
    adapter = ping_adapter(binary("mtping"), cluster, log=tmp_path / "mtping.log")
    try:
        adapter.start()
        assert sink.await_requests(lambda: len(sink.received) > 1)
    finally:
        adapter.kill()
        cluster.api.delete(source)
    first, second = sink.received[:2]
    assert first.type == "dev.knative.sources.ping"
    assert first.headers["ce-source"] == f"/apis/v1/namespaces/{namespace}/pingsources/reconcile"
    assert first.headers["ce-id"] != second.headers["ce-id"]
    assert first.body == b"{}"
