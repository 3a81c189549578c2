"""Each service account has the rights that its function needs, and no other right of the cluster."""

from collections.abc import Iterator

import pytest

from dev.manifests.rendering import OVERLAYS, render
from dev.manifests.rules_access import NEEDS
from tests.cluster.conftest import RIGHTS
from tests.cluster.objects import a_role_for, an_account
from tests.kubernetes.api import Api, Refused
from tests.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.go, pytest.mark.dev]

Right = tuple[str, str, str]
"""API group, resource (with its subresource) and verb, as in `rules_access.NEEDS`."""

Account = tuple[str, str]
"""Name space and name."""

ELSEWHERE = "kube-system"
NOBODY = (ELSEWHERE, "nobody")

# No resource lists these verbs: the server checks them together with another verb.
UNLISTED: tuple[Right, ...] = (
    ("", "users", "impersonate"),
    ("", "serviceaccounts", "impersonate"),
    ("rbac.authorization.k8s.io", "roles", "escalate"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
)


@pytest.fixture(scope="module")
def everything(cluster: ControlPlane) -> list[Right]:
    """Every verb of every resource of the server."""
    return [*_rights(cluster.api), *UNLISTED]


def _rights(api: Api) -> Iterator[Right]:
    versions = [("", "/api/v1")]
    for group in api.send("GET", "/apis")["groups"]:
        versions += [(group["name"], f"/apis/{version['groupVersion']}") for version in group["versions"]]
    found = {
        (group, resource["name"], verb)
        for group, path in versions
        for resource in api.send("GET", path)["resources"]
        for verb in resource["verbs"]
    }
    yield from sorted(found)


def _allowed(api: Api, account: Account, rights: list[Right], namespace: str) -> set[Right]:
    """Return the rights of a service account in a name space."""
    user = f"system:serviceaccount:{account[0]}:{account[1]}"
    return {right for right in rights if _may(api, user, right, namespace)}


def _may(api: Api, user: str, right: Right, namespace: str) -> bool:
    group, path, verb = right
    resource, _, subresource = path.partition("/")
    return api.may(user, verb, group=group, resource=resource, subresource=subresource, namespace=namespace)


@pytest.fixture(scope="module")
def accounts(cluster: ControlPlane) -> list[Account]:
    """Return the accounts of both overlays. Their roles are in the cluster."""
    things = [thing for overlay in OVERLAYS for thing in render(overlay).objects if thing["kind"] in RIGHTS]
    cluster.api.apply_all(things)
    named = [thing["metadata"] for thing in things if thing["kind"] == "ServiceAccount"]
    return sorted({(metadata["namespace"], metadata["name"]) for metadata in named})


def test_each_account_has_exactly_the_rights_that_its_function_needs(
    cluster: ControlPlane, everything: list[Right], accounts: list[Account]
) -> None:
    everybodys = _allowed(cluster.api, NOBODY, everything, ELSEWHERE)
    assert {name for _, name in accounts} >= NEEDS.keys()
    for account in accounts:
        home, name = account
        may = _allowed(cluster.api, account, everything, home) - everybodys
        assert may == NEEDS.get(name, frozenset()), name


def test_no_account_has_more_rights_in_another_name_space(
    cluster: ControlPlane, namespace: str, accounts: list[Account]
) -> None:
    """Pods are watched and listed in every name space. No function needs another right elsewhere."""
    cluster.api.apply(an_account(namespace, "nobody"))
    everybodys = _listed(cluster, (namespace, "nobody"))
    for home, name in accounts:
        assert _listed(cluster, (home, name)) - everybodys == NEEDS.get(name, frozenset()), name


def _listed(cluster: ControlPlane, account: Account) -> set[Right]:
    """Return an account's rights outside its own name space, from the server's own list."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": ELSEWHERE},
    }
    with Api(cluster.url, cluster.token(*account), cluster.ca_file) as own:
        status = own.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
    assert not status["incomplete"]
    return {
        (group, resource, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_an_unneeded_right_is_found(cluster: ControlPlane, namespace: str, everything: list[Right]) -> None:
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    cluster.api.apply_all([an_account(namespace, "curious"), *a_role_for("curious", namespace, rules)])
    assert ("", "secrets", "get") in _allowed(cluster.api, (namespace, "curious"), everything, namespace)


def test_the_server_enforces_the_rights_that_it_reports(cluster: ControlPlane, accounts: list[Account]) -> None:
    """Each account asks, with its own token, for the pods and the secrets of its name space."""
    for home, name in accounts:
        with Api(cluster.url, cluster.token(home, name), cluster.ca_file) as own:
            lists_pods = ("", "pods", "list") in NEEDS.get(name, frozenset())
            assert _status(own, f"/api/v1/namespaces/{home}/pods") == (200 if lists_pods else 403), name
            assert _status(own, f"/api/v1/namespaces/{home}/secrets") == 403, name


def _status(api: Api, path: str) -> int:
    try:
        api.send("GET", path)
    except Refused as refused:
        return refused.status
    return 200
