"""Rights that nobody needs, or that somebody lacks: each is found out."""

import pytest

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered
from dev.manifests.rules_access import (
    nobody_reads_secrets,
    rights_are_given_to_our_accounts_alone,
    service_accounts_may_what_they_ask_for,
    what_is_asked_for_is_what_is_called,
)
from tests.manifests.breaking import Broken, Overlays, bind, grant, pod, remove, the

pytestmark = pytest.mark.dev

PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
ANYTHING = {"apiGroups": ["*"], "resources": ["pods"], "verbs": ["*"]}


def subjects(rendered: Rendered) -> list[Object]:
    """Whom the rights of pod_events are given to."""
    found: list[Object] = the(rendered, "ClusterRoleBinding", "twofold-pod-events")["subjects"]
    return found


BROKEN = (
    Broken(
        service_accounts_may_what_they_ask_for,
        "more than is asked for",
        lambda r: grant(r, "Role", "store", PODS),
        "store: may list pods, and never asks for it",
    ),
    Broken(
        service_accounts_may_what_they_ask_for,
        "a token for nothing",
        lambda r: the(r, "ServiceAccount", "store").pop("automountServiceAccountToken"),
        "has a token",
    ),
    Broken(
        service_accounts_may_what_they_ask_for,
        "no token to ask with",
        lambda r: the(r, "ServiceAccount", "pod-events").update(automountServiceAccountToken=False),
        "has no token to ask Kubernetes with",
    ),
    Broken(
        service_accounts_may_what_they_ask_for,
        "a token that Knative refuses to mount",
        lambda r: pod(r, "pod_events").update(automountServiceAccountToken=True),
        "Knative refuses",
    ),
    Broken(
        service_accounts_may_what_they_ask_for,
        "less than is asked for",
        lambda r: remove(r, "ClusterRoleBinding", "twofold-pod-events"),
        "pod-events: may not list pods, which it asks for",
    ),
    Broken(
        service_accounts_may_what_they_ask_for,
        "a token in a pod for nothing",
        lambda r: pod(r).pop("automountServiceAccountToken"),
        "its pods hold a token",
    ),
    Broken(
        what_is_asked_for_is_what_is_called,
        "another kind is watched",
        lambda r: the(r, "ApiServerSource", "pod-events")["spec"]["resources"].append({"kind": "Job"}),
        "ServiceAccount pod-source",
    ),
    Broken(nobody_reads_secrets, "in the namespace", lambda r: grant(r, "Role", "store", SECRETS), "secrets"),
    Broken(nobody_reads_secrets, "everywhere", lambda r: grant(r, "ClusterRole", "store", SECRETS), "secrets"),
    Broken(nobody_reads_secrets, "all verbs", lambda r: grant(r, "Role", "store", ANYTHING), "verbs is *"),
    Broken(
        nobody_reads_secrets,
        "a role of the cluster's",
        lambda r: bind(r, "ClusterRole", "store", "cluster-admin"),
        "is none of ours",
    ),
    Broken(
        rights_are_given_to_our_accounts_alone,
        "everybody who has a token",
        lambda r: the(r, "ClusterRoleBinding", "twofold-pod-events")["subjects"].append(
            {"kind": "Group", "name": "system:authenticated"}
        ),
        "Group system:authenticated is no service account",
    ),
    Broken(
        rights_are_given_to_our_accounts_alone,
        "another name space's account",
        lambda r: the(r, "ClusterRoleBinding", "twofold-pod-events")["subjects"].append(
            {"kind": "ServiceAccount", "name": "pod-events", "namespace": "default"}
        ),
        "ServiceAccount pod-events is no service account of ours",
    ),
    Broken(
        rights_are_given_to_our_accounts_alone,
        "an account that nobody makes",
        lambda r: the(r, "ClusterRoleBinding", "twofold-pod-events")["subjects"].append(
            {"kind": "ServiceAccount", "name": "shop", "namespace": "twofold"}
        ),
        "ServiceAccount shop is no",
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
