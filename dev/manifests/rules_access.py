"""Rules for the permissions of service accounts in the Kubernetes API. Network access is in `rules_network`."""

from collections.abc import Iterator, Mapping

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called, differences

Permission = tuple[str, str, str]
"""API group, resource, verb."""

NEEDS: Mapping[str, frozenset[Permission]] = {
    "pod-events": frozenset({("", "pods", "get"), ("", "pods", "list")}),
    "pod-source": frozenset({("", "pods", "get"), ("", "pods", "list"), ("", "pods", "watch")}),
}
"""The permissions in use, by service account."""

_TOKEN = "automountServiceAccountToken"  # noqa: S105 - the name of a member


def require_permissions(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require exactly the permissions in `NEEDS`, and a token only for an account with needs.

    Knative refuses `automountServiceAccountToken: true` in a Service: the ServiceAccount must state it.
    """
    for account in rendered.of("ServiceAccount"):
        needs = NEEDS.get(account["metadata"]["name"], frozenset())
        has = _granted(rendered, account["metadata"]["name"])
        for group, resource, verb in sorted(needs ^ has):
            problem = "lacks" if (group, resource, verb) in needs else "does not need"
            yield f"{called(account)}: {problem} the permission {verb} {resource}{f'.{group}' if group else ''}"
        yield from differences(account, account, {_TOKEN: bool(needs)})
    for thing, spec in rendered.pods():
        yield from differences(thing, spec, {_TOKEN: None if spec.get("serviceAccountName") in NEEDS else False})


def require_calls(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require `NEEDS` to equal the calls of the functions and of the adapter of each ApiServerSource."""
    calls = {name.replace("_", "-"): asked for name, asked in project.calls.items() if asked}
    for source in rendered.of("ApiServerSource"):
        kinds = [resource["kind"].lower() for resource in source["spec"]["resources"]]
        asked = frozenset(("", f"{kind}s", verb) for kind in kinds for verb in ("get", "list", "watch"))
        calls[source["spec"]["serviceAccountName"]] = asked
    for name in sorted(calls.keys() | NEEDS.keys()):
        needs, made = NEEDS.get(name, frozenset()), calls.get(name, frozenset())
        if needs != made:
            yield f"ServiceAccount {name}: rules_access.NEEDS has {sorted(needs)}, and its calls are {sorted(made)}"


def require_bindings(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require bindings of roles in the overlay to service accounts in the overlay."""
    accounts = {(found["metadata"]["namespace"], found["metadata"]["name"]) for found in rendered.of("ServiceAccount")}
    for binding in _bindings(rendered):
        ref = binding["roleRef"]
        if rendered.named(ref["kind"], ref["name"]) is None:
            yield f"{called(binding)}: {ref['kind']} {ref['name']} is not in the overlay, and may allow anything"
        for subject in binding.get("subjects", []):
            if subject["kind"] != "ServiceAccount" or (subject.get("namespace"), subject["name"]) not in accounts:
                yield f"{called(binding)}: {subject['kind']} {subject['name']} is no service account of the overlay"


def _granted(rendered: Rendered, account: str) -> frozenset[Permission]:
    """Return the permissions of a service account by the bindings of the overlay."""
    roles = [
        rendered.named(binding["roleRef"]["kind"], binding["roleRef"]["name"]) or {}
        for binding in _bindings(rendered)
        if any(subject["kind"] == "ServiceAccount" and subject["name"] == account for subject in binding["subjects"])
    ]
    return frozenset(
        (group, resource, verb)
        for role in roles
        for rule in role.get("rules", [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def _bindings(rendered: Rendered) -> list[Object]:
    return [*rendered.of("RoleBinding"), *rendered.of("ClusterRoleBinding")]
