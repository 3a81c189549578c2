"""The control plane is a real one with Knative's kinds and role-based access control."""

from functools import partial
from itertools import count

import pytest

from dev.process.child import wait_until
from tests.cluster.kubelet import Kubelet, a_pod
from tests.cluster.objects import a_role_for, an_account
from tests.kubernetes.api import Api, Refused
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.golang import module_version

pytestmark = [pytest.mark.go, pytest.mark.dev]


def test_it_reports_the_pinned_version(cluster: ControlPlane) -> None:
    version = cluster.api.send("GET", "/version")["gitVersion"]
    assert version == module_version("control_plane", "k8s.io/kubernetes")


def test_it_keeps_a_pod_and_its_life(cluster: ControlPlane, namespace: str) -> None:
    pod, kubelet = a_pod(namespace, "work"), Kubelet(cluster.api)
    created = cluster.api.create(pod)
    assert created["status"]["phase"] == "Pending"
    kubelet.bind(pod)
    kubelet.run(pod)
    running = cluster.api.get(pod)
    assert running["spec"]["nodeName"] == "node-1"
    assert {condition["type"] for condition in running["status"]["conditions"]} >= {"PodScheduled", "Ready"}
    deleting = cluster.api.delete(pod)
    assert deleting["metadata"]["deletionGracePeriodSeconds"] == 30
    kubelet.remove(pod)
    with pytest.raises(Refused, match="404"):
        cluster.api.get(pod)


def test_all_times_of_a_report_are_equal(cluster: ControlPlane, namespace: str) -> None:
    """With two times from the clock, a container could start a second before its pod is initialized."""
    pod, minutes = a_pod(namespace, "work"), count()
    kubelet = Kubelet(cluster.api, lambda: f"2026-01-01T00:{next(minutes):02}:00Z")
    cluster.api.create(pod)
    status = kubelet.run(pod)["status"]
    times = [condition["lastTransitionTime"] for condition in status["conditions"]]
    times += [status["startTime"], status["containerStatuses"][0]["state"]["running"]["startedAt"]]
    assert times == ["2026-01-01T00:00:00Z"] * 5


def test_it_refuses_an_invalid_pod(cluster: ControlPlane, namespace: str) -> None:
    pod = a_pod(namespace, "work")
    with pytest.raises(Refused, match="field not declared in schema"):
        cluster.api.apply(pod | {"speck": {}})
    with pytest.raises(Refused, match="Unsupported value"):
        cluster.api.apply(a_pod(namespace, "work", restartPolicy="Sometimes"))


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("serving.knative.dev/v1", "Service"),
        ("sources.knative.dev/v1", "KafkaSource"),
        ("sources.knative.dev/v1", "ApiServerSource"),
        ("sources.knative.dev/v1", "PingSource"),
        ("sinks.knative.dev/v1alpha1", "JobSink"),
    ],
)
def test_it_serves_knatives_kinds(cluster: ControlPlane, api_version: str, kind: str) -> None:
    assert cluster.api.resource(api_version, kind).namespaced


def test_knatives_definitions_refuse_an_unknown_field(cluster: ControlPlane, namespace: str) -> None:
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "publish", "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{"image": "publish:1"}], "timeoutSeconds": 60}}},
    }
    cluster.api.apply(service, dry_run=True)
    service["spec"]["template"]["spec"]["timeoutseconds"] = 60  # type: ignore[index]
    with pytest.raises(Refused, match="timeoutseconds"):
        cluster.api.apply(service, dry_run=True)


def test_a_service_account_has_exactly_the_rights_of_its_role(cluster: ControlPlane, namespace: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    cluster.api.apply_all([an_account(namespace, "reader"), *a_role_for("reader", namespace, rules)])
    user = f"system:serviceaccount:{namespace}:reader"
    may_list = partial(cluster.api.may, user, "list", resource="pods", namespace=namespace)
    assert wait_until(may_list, within=10.0)  # the server reads a new role after a short time
    assert not cluster.api.may(user, "delete", resource="pods", namespace=namespace)
    assert not cluster.api.may(user, "list", resource="pods", namespace="kube-system")
    with Api(cluster.url, cluster.token(namespace, "reader"), cluster.ca_file) as reader:
        assert reader.send("GET", f"/api/v1/namespaces/{namespace}/pods")["items"] == []
        with pytest.raises(Refused, match="403"):
            reader.create(a_pod(namespace, "work"))
