"""Ways that are closed and needed, or open and not: each is found out."""

from collections.abc import Callable

import pytest

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered
from dev.manifests.rules_network import (
    each_pod_reaches_what_it_uses,
    knative_alone_reaches_the_functions,
    local_servers_are_there,
    nothing_else_is_let_through,
    senders_are_kafkas_users,
)
from tests.manifests.breaking import Broken, Overlays, config_map, gone, service, settings, the

pytestmark = pytest.mark.dev


def policy(rendered: Rendered, name: str) -> dict[str, list[dict[str, list[dict[str, object]]]]]:
    spec: dict[str, list[dict[str, list[dict[str, object]]]]] = the(rendered, "NetworkPolicy", name)["spec"]
    return spec


def closed(name: str, port: int, direction: str = "egress") -> Callable[[Rendered], object]:
    """The change that takes a port out of a policy."""

    def change(rendered: Rendered) -> None:
        for rule in policy(rendered, name)[direction]:
            rule["ports"] = [found for found in rule.get("ports", []) if found["port"] != port]
        policy(rendered, name)[direction] = [rule for rule in policy(rendered, name)[direction] if rule["ports"]]

    return change


def opened(name: str, rule: object, direction: str = "egress") -> Callable[[Rendered], object]:
    """The change that adds a rule to a policy."""
    return lambda rendered: the(rendered, "NetworkPolicy", name)["spec"][direction].append(rule)


BROKEN = (
    Broken(nothing_else_is_let_through, "an open network", gone("NetworkPolicy", "nothing-else"), "closes what"),
    Broken(each_pod_reaches_what_it_uses, "no names", gone("NetworkPolicy", "dns"), "store: the cluster's DNS can't"),
    Broken(each_pod_reaches_what_it_uses, "no names by UDP", closed("dns", 53), "setup: the cluster's DNS can't"),
    Broken(each_pod_reaches_what_it_uses, "no figures", gone("NetworkPolicy", "to-collector"), "a collector can't"),
    Broken(each_pod_reaches_what_it_uses, "no way to MongoDB", gone("NetworkPolicy", "store"), "store: MongoDB can't"),
    Broken(each_pod_reaches_what_it_uses, "no set-up", closed("setup", 27017), "setup: MongoDB can't"),
    Broken(each_pod_reaches_what_it_uses, "no topic", closed("setup", 9093), "setup: Kafka can't be reached"),
    Broken(each_pod_reaches_what_it_uses, "no way to Kafka", closed("relay", 9092), "relay: Kafka can't be reached"),
    Broken(each_pod_reaches_what_it_uses, "no keys", closed("publish", 443), "publish: the issuer's keys can't"),
    Broken(each_pod_reaches_what_it_uses, "no listing", closed("pod-events", 6443), "pod_events: Kubernetes' API"),
    Broken(each_pod_reaches_what_it_uses, "no API", closed("pod-events", 443), "pod_events: Kubernetes' API can't"),
    Broken(
        each_pod_reaches_what_it_uses,
        "an adapter that is locked in",
        gone("NetworkPolicy", "pod-source"),
        "the adapter of pod-events: Kubernetes' API can't be reached",
    ),
    Broken(
        each_pod_reaches_what_it_uses,
        "an adapter without its sink",
        lambda r: policy(r, "pod-source")["egress"].pop(),
        "the adapter of pod-events: its sink, through Knative's gateway can't be reached",
    ),
    Broken(
        each_pod_reaches_what_it_uses,
        "a way to Kafka for nothing",
        opened("store", {"ports": [{"port": 9092}]}),
        "egress to TCP 9092 is open, and store has no use for it",
    ),
    Broken(
        each_pod_reaches_what_it_uses,
        "a way to everywhere",
        opened("store", {}),
        "egress to every port is open, and store has no use for it",
    ),
    Broken(
        knative_alone_reaches_the_functions,
        "nobody comes in",
        gone("NetworkPolicy", "from-knative"),
        "store: Knative can't reach it",
    ),
    Broken(
        knative_alone_reaches_the_functions,
        "no requests",
        closed("from-knative", 8012, "ingress"),
        "store: Knative can't reach it (ingress to TCP 8012)",
    ),
    Broken(
        knative_alone_reaches_the_functions,
        "anybody comes in",
        opened("from-knative", {"ports": [{"port": 8012}]}, "ingress"),
        "lets others than Knative's name spaces in to store",
    ),
    Broken(
        knative_alone_reaches_the_functions,
        "any pod of the name space comes in",
        opened("from-knative", {"from": [{"podSelector": {}}], "ports": [{"port": 8012}]}, "ingress"),
        "lets others than Knative's name spaces in to store",
    ),
    Broken(
        senders_are_kafkas_users,
        "a sender without Kafka's user",
        lambda r: service(r, "relay")["metadata"]["labels"].pop("twofold.dev/kafka"),
        "the label twofold.dev/kafka",
    ),
    *(
        Broken(local_servers_are_there, f"no {kind} {name}", gone(kind, name), says, "local")
        for name in ("mongodb", "kafka")
        for kind, says in (
            ("StatefulSet", f"Service {name}: there is no StatefulSet"),
            ("Service", f"there is no Service {name} with that port"),
            ("NetworkPolicy", f"NetworkPolicy {name}: "),
        )
    ),
    Broken(
        local_servers_are_there,
        "another port of Kafka",
        lambda r: settings(r).update(KAFKA_BOOTSTRAP_SERVERS="kafka.twofold.svc:9093"),
        "there is no Service kafka with that port",
        "local",
    ),
    Broken(
        local_servers_are_there,
        "a MongoDB elsewhere",
        lambda r: config_map(r, "mongodb")["data"].update(hosts="mongodb.example.com:27017"),
        "there is no Service com with that port",
        "local",
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
