"""Rules over what service accounts may ask of Kubernetes' API; what pods may reach is in `rules_network`."""

from collections.abc import Iterator, Mapping

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered, called

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


def rights_are_given_to_our_accounts_alone(rendered: Rendered, _: Project) -> Iterator[str]:
    """A group, a user, or an account of another name space would have what ours need."""
    ours = {
        (account["metadata"]["namespace"], account["metadata"]["name"]) for account in rendered.of("ServiceAccount")
    }
    for binding in [*rendered.of("RoleBinding"), *rendered.of("ClusterRoleBinding")]:
        for subject in binding.get("subjects", []):
            if subject["kind"] != "ServiceAccount" or (subject.get("namespace"), subject["name"]) not in ours:
                yield f"{called(binding)}: {subject['kind']} {subject['name']} is no service account of ours"


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


RULES = (
    service_accounts_may_what_they_ask_for,
    what_is_asked_for_is_what_is_called,
    nobody_reads_secrets,
    rights_are_given_to_our_accounts_alone,
)
