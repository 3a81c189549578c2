"""What each service account may do in the cluster: what its function asks for, and nothing else that there is."""

from collections.abc import Iterator

import pytest

from dev.kubernetes.api import Api, Refused
from dev.kubernetes.control_plane import ControlPlane
from dev.manifests.rendering import OVERLAYS, render
from dev.manifests.rules_access import NEEDS
from tests.cluster.conftest import RIGHTS
from tests.cluster.objects import a_role_for, an_account

pytestmark = [pytest.mark.go, pytest.mark.dev]

Right = tuple[str, str, str]
"""API group, resource (with its subresource), verb: as `rules_access.NEEDS` has it."""

Account = tuple[str, str]
"""Name space and name."""

ELSEWHERE = "kube-system"
NOBODY = (ELSEWHERE, "nobody")

# Verbs that no resource lists, since they are checked beside another one.
UNLISTED: tuple[Right, ...] = (
    ("", "users", "impersonate"),
    ("", "serviceaccounts", "impersonate"),
    ("rbac.authorization.k8s.io", "roles", "escalate"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
)


@pytest.fixture(scope="module")
def everything(cluster: ControlPlane) -> list[Right]:
    """All that can be done with all resources that the server has."""
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
    """Those that a service account has in a name space."""
    user = f"system:serviceaccount:{account[0]}:{account[1]}"
    return {right for right in rights if _may(api, user, right, namespace)}


def _may(api: Api, user: str, right: Right, namespace: str) -> bool:
    group, path, verb = right
    resource, _, subresource = path.partition("/")
    return api.may(user, verb, group=group, resource=resource, subresource=subresource, namespace=namespace)


@pytest.fixture(scope="module")
def accounts(cluster: ControlPlane) -> list[Account]:
    """The accounts of both overlays, with their roles in the cluster."""
    things = [thing for overlay in OVERLAYS for thing in render(overlay).objects if thing["kind"] in RIGHTS]
    cluster.api.apply_all(things)
    named = [thing["metadata"] for thing in things if thing["kind"] == "ServiceAccount"]
    return sorted({(metadata["namespace"], metadata["name"]) for metadata in named})


def test_each_account_may_what_its_function_asks_for_and_nothing_else(
    cluster: ControlPlane, everything: list[Right], accounts: list[Account]
) -> None:
    everybodys = _allowed(cluster.api, NOBODY, everything, ELSEWHERE)
    assert {name for _, name in accounts} >= NEEDS.keys()
    for account in accounts:
        home, name = account
        may = _allowed(cluster.api, account, everything, home) - everybodys
        assert may == NEEDS.get(name, frozenset()), name


def test_no_account_may_more_in_another_name_space(
    cluster: ControlPlane, namespace: str, accounts: list[Account]
) -> None:
    """Pods are watched and listed in all of them; nothing else is asked for anywhere."""
    cluster.api.apply(an_account(namespace, "nobody"))
    everybodys = _listed(cluster, (namespace, "nobody"))
    for home, name in accounts:
        assert _listed(cluster, (home, name)) - everybodys == NEEDS.get(name, frozenset()), name


def _listed(cluster: ControlPlane, account: Account) -> set[Right]:
    """All that an account may do outside its own name space, by the server's own list of it."""
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


def test_a_right_too_many_is_seen(cluster: ControlPlane, namespace: str, everything: list[Right]) -> None:
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    cluster.api.apply_all([an_account(namespace, "curious"), *a_role_for("curious", namespace, rules)])
    assert ("", "secrets", "get") in _allowed(cluster.api, (namespace, "curious"), everything, namespace)


def test_what_the_server_says_of_rights_is_what_it_does(cluster: ControlPlane, accounts: list[Account]) -> None:
    """With the accounts' own tokens: each asks for the pods and the secrets of its name space."""
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
