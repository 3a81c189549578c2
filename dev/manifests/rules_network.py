"""Rules for NetworkPolicies: a pod reaches the servers in use, and only callers reach a pod."""

from collections.abc import Iterator, Mapping

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called
from dev.manifests.rules_functions import OPEN, OPERATOR

Labels = Mapping[str, str]
Ports = frozenset[tuple[str, int]]
"""Protocols and numbers."""


def _tcp(*ports: int) -> Ports:
    return frozenset(("TCP", port) for port in ports)


DNS: Ports = frozenset((protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353))
"""5353 is the port of OpenShift's DNS pods."""
MONGODB = _tcp(27017)
KAFKA = _tcp(9092, 9093)
ISSUER = _tcp(443)  # the keys of the token issuer
COLLECTOR = _tcp(4318)
KUBERNETES = _tcp(443, 6443)  # the Service's port, and the server's own
EVERYTHING: Ports = frozenset({("any", 0)})  # a policy rule without ports
QUEUE_PROXY = _tcp(8012, 8013, 8112, 9090, 9091)  # requests and metrics, by Knative's gateway and activator


def require_closed_default(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require a policy without rules that closes every pod in both directions."""
    for policy in rendered.of("NetworkPolicy"):
        spec = policy["spec"]
        is_both_ways = set(spec.get("policyTypes", [])) == {"Ingress", "Egress"}
        if spec["podSelector"] == {} and is_both_ways and not spec.get("ingress") and not spec.get("egress"):
            return
    yield "no NetworkPolicy closes all pods: add one with podSelector: {}, Ingress and Egress, and no rules"


def require_egress(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require open ports for exactly the servers in use by a pod."""
    for name, labels, used in _used(rendered, project):
        yield from _changes(name, "egress", used, _ports(rendered, labels, "egress"))


def _used(rendered: Rendered, project: Project) -> Iterator[tuple[str, Labels, Ports]]:
    """Yield the name, the labels and the used ports of each kind of pod."""
    for name in rendered.functions:
        used = DNS | MONGODB | COLLECTOR
        used |= KAFKA if name in project.senders else frozenset()
        used |= ISSUER if name in OPEN else frozenset()
        used |= KUBERNETES if project.calls.get(name) else frozenset()
        yield name, _of_function(name), used
    for name in ("setup", OPERATOR):
        yield name, {"app.kubernetes.io/name": name}, DNS | MONGODB | KAFKA
    for source in rendered.of("ApiServerSource"):
        name = source["metadata"]["name"]
        labels = {"eventing.knative.dev/sourceName": name}
        yield f"for the adapter of {name}", labels, DNS | KUBERNETES | EVERYTHING  # its sink is behind a gateway


def require_ingress(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require ingress from the namespaces of Knative only."""
    for name in rendered.functions:
        yield from _changes(name, "ingress", QUEUE_PROXY, _ports(rendered, _of_function(name), "ingress"))
        for policy in _selecting(rendered, _of_function(name)):
            for rule in policy["spec"].get("ingress", []):
                if not rule.get("from") or not all("namespaceSelector" in peer for peer in rule["from"]):
                    yield f"{called(policy)}: lets callers outside Knative's namespaces reach {name}"


def require_sender_label(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require the label for functions that send to Kafka: the production overlay selects by this label."""
    for name, service in rendered.functions.items():
        if ("twofold.dev/kafka" in service["metadata"]["labels"]) != (name in project.senders):
            yield f"{called(service)}: the label twofold.dev/kafka: client is for exactly the functions that send"


def _ports(rendered: Rendered, labels: Labels, direction: str) -> Ports:
    found: set[tuple[str, int]] = set()
    for policy in _selecting(rendered, labels):
        for rule in policy["spec"].get(direction, []):
            named = {(port.get("protocol", "TCP"), port.get("port", 0)) for port in rule.get("ports", [])}
            found |= named or EVERYTHING
    return frozenset(found)


def _selecting(rendered: Rendered, labels: Labels) -> Iterator[Object]:
    """Yield the policies that select a pod with these labels."""
    for policy in rendered.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        expressions = selector.get("matchExpressions", [])
        has = all(found["operator"] == "Exists" and found["key"] in labels for found in expressions)
        if has and selector.get("matchLabels", {}).items() <= labels.items():
            yield policy


def _of_function(name: str) -> Labels:
    return {"serving.knative.dev/service": name.replace("_", "-")}


def _changes(name: str, direction: str, wanted: Ports, opened: Ports) -> Iterator[str]:
    for port in sorted(wanted ^ opened):
        yield f"NetworkPolicy {name}: {'open' if port in wanted else 'close'} {direction} to {port[0]} {port[1]}"
