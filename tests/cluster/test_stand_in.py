"""The stand-in of ApiServerSource sends the same requests as Knative's adapter for the same real pods."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dev.manifests.rendering import Rendered
from dev.paths import ROOT
from dev.process.child import Child, plain_environment, wait_until
from dev.stack import Options, Stack
from tests.cluster.adapters import receive_adapter
from tests.cluster.conftest import Binary
from tests.cluster.kubelet import Kubelet, a_pod
from tests.cluster.sink import Sink, SinkRequest, recording
from tests.cluster.timelines import come_to_be, told
from tests.helpers import view
from tests.kubernetes.api import Manifest
from tests.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.go, pytest.mark.dev]

REQUEST_HEADERS = {"ce-id", "ce-time"}
CLIENT_HEADERS = {"host", "user-agent", "accept", "accept-encoding", "connection", "content-length", "kn-namespace"}


@contextmanager
def _both(real: Child, stand_in: Child) -> Iterator[None]:
    try:
        real.start()
        stand_in.start()
        yield
    finally:
        real.kill()
        stand_in.kill()


def _stand_in(cluster: ControlPlane, sink: Sink, log: Path) -> Child:
    kubeconfig = cluster.kubeconfig("twofold", "pod-source")
    command = [sys.executable, "-m", "dev.api_server_source", "--sink", sink.url, "--kubeconfig", str(kubeconfig)]
    return Child(
        "api_server_source",
        command,
        log=log,
        ready=lambda child: child.printed("watching"),
        cwd=ROOT,
        env=plain_environment(),
    )


def _content(request: SinkRequest) -> tuple[dict[str, str], Any]:
    kept = request.headers.keys() - REQUEST_HEADERS - CLIENT_HEADERS
    return {name: request.headers[name] for name in kept}, request.object


@pytest.fixture
def real(cluster: ControlPlane, deployed: Rendered, sink: Sink, binary: Binary, tmp_path: Path) -> Child:
    """Knative's adapter for the source of our manifests, not started."""
    (source,) = deployed.of("ApiServerSource")
    program = binary("apiserver_receive_adapter")
    return receive_adapter(program, cluster, source, sink.url, log=tmp_path / "adapter.log")


def test_the_stand_in_sends_the_same_requests_as_the_adapter(
    cluster: ControlPlane, namespace: str, sink: Sink, real: Child, tmp_path: Path
) -> None:
    with recording() as other, _both(real, _stand_in(cluster, other, tmp_path / "stand_in.log")):
        numbers = count()

        def both_send() -> bool:
            name = f"canary-{next(numbers)}"
            cluster.api.create(a_pod(namespace, name))
            return wait_until(lambda: bool(sink.of(name) and other.of(name)), within=1.0)

        assert wait_until(both_send, within=60.0)
        _live(cluster, a_pod(namespace, "work"))
        assert all(map(_sent_to_the_end, (sink, other)))
    theirs, ours = sink.of("work"), other.of("work")
    assert [_content(request) for request in ours] == [_content(request) for request in theirs]
    assert all(request.headers.keys() >= REQUEST_HEADERS | {"kn-namespace"} for request in [*ours, *theirs])
    assert len({request.headers["ce-id"] for request in ours}) == len(ours)


def _live(cluster: ControlPlane, pod: Manifest) -> None:
    kubelet = Kubelet(cluster.api)
    cluster.api.create(pod)
    kubelet.bind(pod)
    kubelet.run(pod)
    kubelet.delete(pod)
    kubelet.end(pod, 137, "OOMKilled")
    kubelet.remove(pod)


def _sent_to_the_end(seen: Sink) -> bool:
    return seen.await_requests(lambda: seen.types("work")[-1:] == ["delete"])


def test_a_stack_with_a_kubeconfig_watches_and_lists_its_pods(
    cluster: ControlPlane, deployed: Rendered, namespace: str
) -> None:
    """`make dev KUBECONFIG=FILE` sees a pod from before its start, and a pod that is removed after its start."""
    there, going = a_pod(namespace, "there"), a_pod(namespace, "going")
    uids = [cluster.api.create(there)["metadata"]["uid"]]
    options = Options(
        with_functions=("pod_events", "store"), kubeconfig=cluster.kubeconfig("twofold", "pod-source"), pod_lives=True
    )
    with Stack(options) as stack, view(stack) as flow:
        uids.append(cluster.api.create(going)["metadata"]["uid"])
        Kubelet(cluster.api).remove(going)
        assert come_to_be(flow, uids[0], ["created"])
        assert wait_until(lambda: told(flow, "events", uids[1])[-1:] == ["deleted watched"], within=30.0)
