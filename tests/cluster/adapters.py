"""Knative's source adapters as processes, with the settings that their controllers would give them.

`apiserver_receive_adapter` serves an ApiServerSource, `mtping` all PingSources. Both serve probes on port 8080 of
every interface if this port is free: Knative fixes the port.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dev.process.child import Child, plain_environment
from tests.kubernetes import knative
from tests.kubernetes.api import Api, Manifest
from tests.kubernetes.control_plane import ControlPlane

_EVENTING = "knative-eventing"
_PING_ACCOUNT = "pingsource-mt-adapter"
_PING_OBJECTS = {
    ("Namespace", _EVENTING),
    ("ConfigMap", "config-logging"),
    ("ConfigMap", "config-observability"),
    ("ServiceAccount", _PING_ACCOUNT),
    ("ClusterRole", f"knative-eventing-{_PING_ACCOUNT}"),
    ("ClusterRoleBinding", f"knative-eventing-{_PING_ACCOUNT}"),
}
_READY = ("Starting in resilient mode", "Started workers")
"""The log lines of a started adapter, by the two programs."""

_OPERATORS = {
    "In": "{key} in ({values})",
    "NotIn": "{key} notin ({values})",
    "Exists": "{key}",
    "DoesNotExist": "!{key}",
}


def receive_adapter(program: Path, cluster: ControlPlane, source: Manifest, sink: str, *, log: Path) -> Child:
    """Return the adapter of an ApiServerSource, not started. It has the rights of the source's service account.

    It is ready when it starts to watch. It never sends a change from before the end of its first list.
    """
    account = source["spec"].get("serviceAccountName", "default")
    settings = {
        "K_SINK": sink,
        "K_SOURCE_CONFIG": json.dumps(source_config(source)),
        "NAMESPACE": source["metadata"]["namespace"],
        "NAME": source["metadata"]["name"],
    }
    return _adapter("apiserver_source", program, cluster, account, settings=settings, log=log)


def source_config(source: Manifest) -> dict[str, Any]:
    """Return the adapter's configuration for an ApiServerSource, as Knative's controller writes it. Pure.

    Raises `ValueError` for a `namespaceSelector` with labels: only the controller can look up the name spaces.
    """
    spec = source["spec"]
    if spec.get("namespaceSelector"):
        raise ValueError(
            "spec.namespaceSelector has labels, which need Knative's controller: leave it out, or use {} for all"
        )
    return {
        "namespaces": [source["metadata"]["namespace"]],
        "allNamespaces": "namespaceSelector" in spec,  # an empty selector means every name space
        "resources": [_watched(resource) for resource in spec["resources"]],
        "owner": spec.get("owner"),
        "mode": spec.get("mode", "Reference"),
        "filters": spec.get("filters", []),
    }


def _watched(resource: dict[str, Any]) -> dict[str, Any]:
    group, _, version = resource["apiVersion"].rpartition("/")
    watched = {"gvr": {"Group": group, "Version": version, "Resource": f"{resource['kind'].lower()}s"}}
    return watched | {"selector": label_selector(resource.get("selector", {}))}


def label_selector(selector: dict[str, Any]) -> str:
    """Return a LabelSelector in the form of the API's `labelSelector` parameter. Pure."""
    parts = [f"{key}={value}" for key, value in sorted(selector.get("matchLabels", {}).items())]
    for wanted in selector.get("matchExpressions", []):
        values = ",".join(sorted(wanted.get("values", [])))
        parts.append(_OPERATORS[wanted["operator"]].format(key=wanted["key"], values=values))
    return ",".join(parts)


def ping_adapter(program: Path, cluster: ControlPlane, *, log: Path) -> Child:
    """Return the adapter of all PingSources, not started, with the account and the roles of Knative's release."""
    cluster.api.apply_all(item for item in knative.objects("eventing") if knative.identity(item) in _PING_OBJECTS)
    settings = {
        "SYSTEM_NAMESPACE": _EVENTING,
        "NAMESPACE": _EVENTING,
        "POD_NAME": _PING_ACCOUNT,
        "K_LEADER_ELECTION_CONFIG": "",
        "K_NO_SHUTDOWN_AFTER": "59",  # allow the end in every second of a minute
    }
    return _adapter("mtping", program, cluster, _PING_ACCOUNT, settings=settings, log=log)


def _adapter(
    name: str, program: Path, cluster: ControlPlane, account: str, *, settings: dict[str, str], log: Path
) -> Child:
    common = {
        "K_SINK_TIMEOUT": "-1",
        "K_LOGGING_CONFIG": "",
        "K_OBSERVABILITY_CONFIG": "{}",
        "KUBECONFIG": str(cluster.kubeconfig(settings["NAMESPACE"], account)),
    }
    return Child(
        name,
        [program],
        log=log,
        ready=lambda started: any(words in started.log_tail(lines=500) for words in _READY),
        env=plain_environment() | common | settings,
    )


def set_ready(api: Api, source: Manifest, sink: str) -> None:
    """Write a source's status, as its controller does when the sink's address is known."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": now}
    api.set_status(source, {"sinkUri": sink, "conditions": [condition]})
