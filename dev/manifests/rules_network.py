"""Rules over the network: each pod reaches what it uses and is reached by what calls it, and neither by more."""

from collections.abc import Iterator, Mapping, Sequence

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called
from dev.manifests.rules_functions import OPEN

Ports = frozenset[tuple[str, int]]
"""Protocols and numbers."""

Way = tuple[str, Ports]
"""What is reached, in words, and at which ports."""


def _tcp(*ports: int) -> Ports:
    return frozenset(("TCP", port) for port in ports)


EVERYTHING: Ports = frozenset({("any", 0)})
"""What a policy that names no ports lets through."""

NAMES: Way = ("the cluster's DNS", frozenset({("UDP", 53), ("TCP", 53)}))
MONGODB: Way = ("MongoDB", _tcp(27017))
KAFKA: Way = ("Kafka", _tcp(9092, 9093))
ISSUER: Way = ("the issuer's keys", _tcp(443))
COLLECTOR: Way = ("a collector", _tcp(4318))
KUBERNETES: Way = ("Kubernetes' API", _tcp(443, 6443))  # its Service, and the server's own port
GATEWAY: Way = ("its sink, through Knative's gateway", EVERYTHING)

QUEUE_PROXY = _tcp(8012, 8013, 8112, 9090, 9091)
"""By which Knative brings requests to a function, and reads its figures."""


def nothing_else_is_let_through(rendered: Rendered, _: Project) -> Iterator[str]:
    """What no policy names is closed; a policy opens only what it says."""
    if not any(_closes_all(policy) for policy in rendered.of("NetworkPolicy")):
        yield "no NetworkPolicy closes what the others don't open (podSelector: {}, Ingress and Egress, no rules)"


def each_pod_reaches_what_it_uses(rendered: Rendered, project: Project) -> Iterator[str]:
    """And nothing that it doesn't: the table is `ways`, the policies are those that select the pod's labels."""
    for name, labels, used in ways(rendered, project):
        opened = _ports(rendered, labels, "egress")
        for what, ports in used:
            if missing := ports - opened:
                yield f"NetworkPolicy {name}: {what} can't be reached (egress to {_written(missing)})"
        if more := opened - frozenset().union(*(ports for _, ports in used)):
            yield f"NetworkPolicy {name}: egress to {_written(more)} is open, and {name} has no use for it"


def ways(rendered: Rendered, project: Project) -> Iterator[tuple[str, Mapping[str, str], Sequence[Way]]]:
    """Each kind of pod: its name, the labels by which policies select it, and what it reaches."""
    for name in rendered.functions:
        used = [NAMES, MONGODB, COLLECTOR]
        used += [KAFKA] if name in project.senders else []
        used += [ISSUER] if name in OPEN else []
        used += [KUBERNETES] if project.calls.get(name) else []
        yield name, _of_function(name), used
    yield "setup", {"app.kubernetes.io/name": "setup"}, [NAMES, MONGODB, KAFKA]
    for source in rendered.of("ApiServerSource"):
        name = source["metadata"]["name"]
        labels = {"eventing.knative.dev/sourceName": name}
        yield f"for the adapter of {name}", labels, [NAMES, KUBERNETES, GATEWAY]


def knative_alone_reaches_the_functions(rendered: Rendered, _: Project) -> Iterator[str]:
    """Through its gateway and its activator, in name spaces that a policy names."""
    for name in rendered.functions:
        if missing := QUEUE_PROXY - _ports(rendered, _of_function(name), "ingress"):
            yield f"NetworkPolicy {name}: Knative can't reach it (ingress to {_written(missing)})"
        for policy in _selecting(rendered, _of_function(name)):
            for rule in policy["spec"].get("ingress", []):
                if not rule.get("from") or not all("namespaceSelector" in peer for peer in rule["from"]):
                    yield f"{called(policy)}: lets others than Knative's name spaces in to {name}"


def senders_are_kafkas_users(rendered: Rendered, project: Project) -> Iterator[str]:
    """By a label, which the production overlay goes by."""
    for name, service in rendered.functions.items():
        if ("twofold.dev/kafka" in service["metadata"]["labels"]) != (name in project.senders):
            yield f"{called(service)}: the label twofold.dev/kafka: client is for those that send, and for them only"


def local_servers_are_there(rendered: Rendered, _: Project) -> Iterator[str]:
    """Each address of the local overlay leads to a Service, to pods, and through their NetworkPolicy."""
    if rendered.overlay != "local":
        return
    kafka = rendered.data("settings").get("KAFKA_BOOTSTRAP_SERVERS", "")
    for address in [*rendered.data("mongodb").get("hosts", "").split(","), *kafka.split(",")]:
        host, *port = address.split(":")
        name = host.removesuffix(".twofold.svc").rpartition(".")[2]
        service = rendered.named("Service", name, "v1")
        if service is None or not any([str(found["port"])] == port for found in service["spec"]["ports"]):
            yield f"{address}: there is no Service {name} with that port"
            continue
        pods = [spec for spec in rendered.of("StatefulSet") if _selects(service["spec"]["selector"], _labels(spec))]
        if not pods:
            yield f"{called(service)}: there is no StatefulSet whose pods it selects"
        for stateful in pods:
            if ("TCP", int(*port)) not in _ports(rendered, _labels(stateful), "ingress"):
                yield f"NetworkPolicy {name}: {address} can't be reached (ingress to {port[0]})"


def _closes_all(policy: Object) -> bool:
    spec = policy["spec"]
    closed = set(spec.get("policyTypes", [])) == {"Ingress", "Egress"}
    return spec["podSelector"] == {} and closed and not spec.get("ingress") and not spec.get("egress")


def _ports(rendered: Rendered, labels: Mapping[str, str], direction: str) -> Ports:
    found: set[tuple[str, int]] = set()
    for policy in _selecting(rendered, labels):
        for rule in policy["spec"].get(direction, []):
            named = {(port.get("protocol", "TCP"), port.get("port", 0)) for port in rule.get("ports", [])}
            found |= named or EVERYTHING
    return frozenset(found)


def _selecting(rendered: Rendered, labels: Mapping[str, str]) -> Iterator[Object]:
    for policy in rendered.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        has = all(
            expression["operator"] == "Exists" and expression["key"] in labels
            for expression in selector.get("matchExpressions", [])
        )
        if has and _selects(selector.get("matchLabels", {}), labels):
            yield policy


def _selects(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return wanted.items() <= labels.items()


def _labels(thing: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = thing["spec"]["template"]["metadata"]["labels"]
    return labels


def _of_function(name: str) -> Mapping[str, str]:
    return {"serving.knative.dev/service": name.replace("_", "-")}


def _written(ports: Ports) -> str:
    return ", ".join("every port" if port == 0 else f"{protocol} {port}" for protocol, port in sorted(ports))


RULES = (
    nothing_else_is_let_through,
    each_pod_reaches_what_it_uses,
    knative_alone_reaches_the_functions,
    senders_are_kafkas_users,
    local_servers_are_there,
)
