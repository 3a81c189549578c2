"""Rules over what may be reached and read: Kubernetes' API, secrets, the network."""

from collections.abc import Iterator, Mapping

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called

MONGODB = 27017
KAFKA = frozenset({9092, 9093})
KUBERNETES = frozenset({443, 6443})
"""The API's Service, and the server's own port."""

NEEDS: Mapping[str, frozenset[tuple[str, str, str]]] = {
    "pod-events": frozenset({("", "pods", "get"), ("", "pods", "list")}),
    "pod-source": frozenset({("", "pods", "get"), ("", "pods", "list"), ("", "pods", "watch")}),
}
"""What each service account asks Kubernetes' API for, as (API group, resource, verb): the calls that are made."""


def service_accounts_may_what_they_ask_for(rendered: Rendered, _: Project) -> Iterator[str]:
    """That and nothing else, in the namespaces where they ask. Who asks for nothing has no token either."""
    for account in rendered.of("ServiceAccount"):
        name = account["metadata"]["name"]
        may, needs = granted(rendered, name), NEEDS.get(name, frozenset())
        for group, resource, verb in sorted(needs - may):
            yield f"{called(account)}: may not {verb} {resource}{f'.{group}' if group else ''}, which it asks for"
        for group, resource, verb in sorted(may - needs):
            yield f"{called(account)}: may {verb} {resource}{f'.{group}' if group else ''}, and never asks for it"
        if not needs and account.get("automountServiceAccountToken") is not False:
            yield f"{called(account)}: has a token, and needs none (automountServiceAccountToken: false)"
        if needs and account.get("automountServiceAccountToken") is not True:
            yield f"{called(account)}: has no token to ask Kubernetes with (automountServiceAccountToken: true)"
    for service in rendered.functions.values():
        if service["spec"]["template"]["spec"].get("automountServiceAccountToken") is True:
            yield f"{called(service)}: Knative refuses automountServiceAccountToken: true: say it in the ServiceAccount"
    for thing, spec in rendered.pods():
        if spec.get("serviceAccountName") not in NEEDS and spec.get("automountServiceAccountToken") is not False:
            yield f"{called(thing)}: its pods hold a token, and need none (automountServiceAccountToken: false)"


def what_is_asked_for_is_what_is_called(rendered: Rendered, project: Project) -> Iterator[str]:
    """`NEEDS`, by which the API server is asked too: the functions' calls, and those of the source's adapter."""
    calls = {name.replace("_", "-"): asked for name, asked in project.calls.items() if asked}
    for source in rendered.of("ApiServerSource"):
        kinds = [resource["kind"].lower() for resource in source["spec"]["resources"]]
        asked = frozenset(("", f"{kind}s", verb) for kind in kinds for verb in ("get", "list", "watch"))
        calls[source["spec"]["serviceAccountName"]] = asked
    for name in sorted(calls.keys() | NEEDS.keys()):
        if calls.get(name, frozenset()) != NEEDS.get(name, frozenset()):
            has, makes = sorted(NEEDS.get(name, ())), sorted(calls.get(name, ()))
            yield f"ServiceAccount {name}: rules_access.NEEDS has {has}, and the calls made are {makes}"


def nobody_reads_secrets(rendered: Rendered, _: Project) -> Iterator[str]:
    """Pods are given the ones that they name, by the kubelet; no account may read any, least of all everywhere."""
    for role in [*rendered.of("Role"), *rendered.of("ClusterRole")]:
        for rule in role.get("rules", []):
            for forbidden in ("secrets", "*"):
                if forbidden in rule.get("resources", []):
                    yield f"{called(role)}: gives access to {forbidden}"
            for what in ("verbs", "apiGroups"):
                if "*" in rule.get(what, []):
                    yield f"{called(role)}: {what} is *"
    for binding in [*rendered.of("RoleBinding"), *rendered.of("ClusterRoleBinding")]:
        ref = binding["roleRef"]
        if rendered.named(ref["kind"], ref["name"]) is None:
            yield f"{called(binding)}: {ref['kind']} {ref['name']} is none of ours, and may allow anything"


def granted(rendered: Rendered, account: str) -> frozenset[tuple[str, str, str]]:
    """What the bindings of an overlay let a service account do."""
    found: set[tuple[str, str, str]] = set()
    for binding in [*rendered.of("RoleBinding"), *rendered.of("ClusterRoleBinding")]:
        if any(subject["kind"] == "ServiceAccount" and subject["name"] == account for subject in binding["subjects"]):
            role = rendered.named(binding["roleRef"]["kind"], binding["roleRef"]["name"]) or {}
            for rule in role.get("rules", []):
                found |= {
                    (group, resource, verb)
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                }
    return frozenset(found)


def the_network_lets_through_what_is_used(rendered: Rendered, project: Project) -> Iterator[str]:
    """MongoDB for every function, Kafka for those that send; and nothing that no policy names."""
    if not any(_selects_all(policy) for policy in rendered.of("NetworkPolicy")):
        yield "no NetworkPolicy closes what the others don't open (podSelector: {}, Ingress and Egress, no rules)"
    clients = {name: {"serving.knative.dev/service": name.replace("_", "-")} for name in rendered.functions}
    for name, labels in (clients | {"setup": {"app.kubernetes.io/name": "setup"}}).items():
        ports = _egress_ports(rendered, labels)
        sends = name in project.senders or name == "setup"
        if MONGODB not in ports:
            yield f"NetworkPolicy {name}: MongoDB can't be reached (egress to port {MONGODB})"
        if sends and not ports >= KAFKA:
            yield f"NetworkPolicy {name}: Kafka can't be reached (egress to ports {sorted(KAFKA)})"
        if not sends and ports & KAFKA:
            yield f"NetworkPolicy {name}: Kafka can be reached, and {name} sends nothing"
        service = rendered.functions.get(name)
        if service and ("twofold.dev/kafka" in service["metadata"]["labels"]) != sends:
            yield f"{called(service)}: the label twofold.dev/kafka: client is for those that send, and for them only"

    for source in rendered.of("ApiServerSource"):
        labels = {"eventing.knative.dev/sourceName": source["metadata"]["name"]}
        if not _egress_ports(rendered, labels) >= KUBERNETES:
            yield f"{called(source)}: its adapter can't reach Kubernetes' API (a NetworkPolicy for pods with {labels})"


def _selects_all(policy: Object) -> bool:
    spec = policy["spec"]
    closed = set(spec.get("policyTypes", [])) == {"Ingress", "Egress"}
    return spec["podSelector"] == {} and closed and not spec.get("ingress") and not spec.get("egress")


def _egress_ports(rendered: Rendered, labels: Mapping[str, str]) -> set[int]:
    return {
        port["port"]
        for policy in rendered.of("NetworkPolicy")
        if policy["spec"]["podSelector"].get("matchLabels") == labels
        for rule in policy["spec"].get("egress", [])
        for port in rule.get("ports", [])
    }


RULES = (
    service_accounts_may_what_they_ask_for,
    what_is_asked_for_is_what_is_called,
    nobody_reads_secrets,
    the_network_lets_through_what_is_used,
)
