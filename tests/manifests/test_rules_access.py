"""Rights and ways that nobody needs, or that somebody lacks: each is found out."""

import pytest

from dev.manifests.project import Project
from dev.manifests.rules_access import (
    nobody_reads_secrets,
    service_accounts_may_what_they_ask_for,
    the_network_lets_through_what_is_used,
    what_is_asked_for_is_what_is_called,
)
from tests.manifests.breaking import Broken, Overlays, bind, grant, pod, remove, service, the

pytestmark = pytest.mark.dev

PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
ANYTHING = {"apiGroups": ["*"], "resources": ["pods"], "verbs": ["*"]}

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
    Broken(
        the_network_lets_through_what_is_used,
        "an adapter that is locked in",
        lambda r: remove(r, "NetworkPolicy", "pod-source"),
        "its adapter can't reach Kubernetes' API",
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
        the_network_lets_through_what_is_used,
        "an open network",
        lambda r: remove(r, "NetworkPolicy", "nothing-else"),
        "no NetworkPolicy closes",
    ),
    Broken(
        the_network_lets_through_what_is_used,
        "no way to MongoDB",
        lambda r: remove(r, "NetworkPolicy", "store"),
        "MongoDB can't be reached",
    ),
    Broken(
        the_network_lets_through_what_is_used,
        "no way to Kafka",
        lambda r: the(r, "NetworkPolicy", "relay")["spec"]["egress"].pop(),
        "Kafka can't be reached",
    ),
    Broken(
        the_network_lets_through_what_is_used,
        "a way to Kafka for nothing",
        lambda r: the(r, "NetworkPolicy", "store")["spec"]["egress"].append({"ports": [{"port": 9092}]}),
        "store sends nothing",
    ),
    Broken(
        the_network_lets_through_what_is_used,
        "a sender without Kafka's user",
        lambda r: service(r, "relay")["metadata"]["labels"].pop("twofold.dev/kafka"),
        "the label twofold.dev/kafka",
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
