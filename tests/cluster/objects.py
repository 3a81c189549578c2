"""Kubernetes objects for the tests of the cluster."""

from typing import Any

from tests.kubernetes.api import Manifest

READS_PODS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]


def an_account(namespace: str, name: str = "default") -> Manifest:
    """Return a service account. Every name space needs `default`, which a controller would create."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def a_role_for(account: str, namespace: str, rules: list[dict[str, Any]]) -> list[Manifest]:
    """Return a role in the name space, and its binding to the account."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": account, "namespace": namespace}
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    return [role, binding]


def a_pod_source(namespace: str, account: str, sink: str, labels: dict[str, str], mode: str = "Resource") -> Manifest:
    """Return an ApiServerSource that watches the pods with these labels."""
    watched = {"apiVersion": "v1", "kind": "Pod", "selector": {"matchLabels": labels}}
    return {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "ApiServerSource",
        "metadata": {"name": "pods", "namespace": namespace},
        "spec": {"mode": mode, "serviceAccountName": account, "resources": [watched], "sink": {"uri": sink}},
    }


def a_ping_source(namespace: str, sink: str, schedule: str) -> Manifest:
    """Return a PingSource that sends an empty object."""
    return {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "PingSource",
        "metadata": {"name": "reconcile", "namespace": namespace},
        "spec": {"schedule": schedule, "contentType": "application/json", "data": "{}", "sink": {"uri": sink}},
    }
