"""Knative's own source adapters as processes, each with what its controller would give it.

They are the programs that Knative runs in a cluster: `apiserver_receive_adapter` for one ApiServerSource, `mtping` for
all PingSources. Each serves its probes on port 8080 of every interface, if that is free: Knative fixes it.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dev.functions import plain_environment
from dev.kubernetes import knative
from dev.kubernetes.api import Api, Manifest
from dev.kubernetes.control_plane import ControlPlane
from dev.processes import Child

SYSTEM_NAMESPACE = "knative-eventing"

_PING_ACCOUNT = "pingsource-mt-adapter"
_PING_OBJECTS = {
    ("Namespace", SYSTEM_NAMESPACE),
    ("ConfigMap", "config-logging"),
    ("ConfigMap", "config-observability"),
    ("ServiceAccount", _PING_ACCOUNT),
    ("ClusterRole", f"knative-eventing-{_PING_ACCOUNT}"),
    ("ClusterRoleBinding", f"knative-eventing-{_PING_ACCOUNT}"),
}
_READY = ("Starting in resilient mode", "Started workers")
"""What the one and the other write when they begin."""
_OBSERVED = {"K_LOGGING_CONFIG": "", "K_OBSERVABILITY_CONFIG": "{}"}


def receive_adapter(
    program: Path, cluster: ControlPlane, source: Manifest, sink: str, *, log: Path, name: str = "apiserver_source"
) -> Child:
    """The adapter of an ApiServerSource, not started, running as the source's service account.

    It is ready when it says that it starts to watch; what happens before its first list has ended is never sent.
    """
    account = source["spec"].get("serviceAccountName", "default")
    settings = {
        "K_SINK": sink,
        "K_SOURCE_CONFIG": json.dumps(source_config(source)),
        "NAMESPACE": source["metadata"]["namespace"],
        "NAME": source["metadata"]["name"],
        "K_SINK_TIMEOUT": "-1",
        **_OBSERVED,
    }
    return _adapter((name, program, log), cluster, account, settings)


def source_config(source: Manifest) -> dict[str, Any]:
    """What Knative's controller makes of an ApiServerSource's spec for its adapter. Pure.

    Raises `ValueError` for a `namespaceSelector` that chooses: the controller would look the name spaces up.
    """
    spec = source["spec"]
    if spec.get("namespaceSelector"):
        raise ValueError(
            "only the source's own name space, or all of them, can be watched without Knative's controller"
        )
    return {
        "namespaces": [source["metadata"]["namespace"]],
        "allNamespaces": "namespaceSelector" in spec,  # an empty one chooses all
        "resources": [_watched(resource) for resource in spec["resources"]],
        "owner": spec.get("owner"),
        "mode": spec.get("mode", "Reference"),
        "filters": spec.get("filters", []),
    }


def _watched(resource: dict[str, Any]) -> dict[str, Any]:
    group, _, version = resource["apiVersion"].rpartition("/")
    plural = f"{resource['kind'].lower()}s"
    watched = {"gvr": {"Group": group, "Version": version, "Resource": plural}}
    return watched | {"selector": label_selector(resource.get("selector", {}))}


def label_selector(selector: dict[str, Any]) -> str:
    """A LabelSelector as one string, as the API's `labelSelector` has it. Pure."""
    written = {
        "In": "{key} in ({values})",
        "NotIn": "{key} notin ({values})",
        "Exists": "{key}",
        "DoesNotExist": "!{key}",
    }
    parts = [f"{key}={value}" for key, value in sorted(selector.get("matchLabels", {}).items())]
    for wanted in selector.get("matchExpressions", []):
        values = ",".join(sorted(wanted.get("values", [])))
        parts.append(written[wanted["operator"]].format(key=wanted["key"], values=values))
    return ",".join(parts)


def ping_adapter(program: Path, cluster: ControlPlane, *, log: Path) -> Child:
    """The adapter of all PingSources, not started, with the account and the roles that Knative's release gives it."""
    cluster.api.apply_all(item for item in knative.objects("eventing") if _identity(item) in _PING_OBJECTS)
    settings = {
        "SYSTEM_NAMESPACE": SYSTEM_NAMESPACE,
        "NAMESPACE": SYSTEM_NAMESPACE,
        "POD_NAME": _PING_ACCOUNT,
        "K_LEADER_ELECTION_CONFIG": "",
        "K_NO_SHUTDOWN_AFTER": "59",  # it may end at any second of a minute
        "K_SINK_TIMEOUT": "-1",
        **_OBSERVED,
    }
    return _adapter(("mtping", program, log), cluster, _PING_ACCOUNT, settings)


def _identity(item: Manifest) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def _adapter(child: tuple[str, Path, Path], cluster: ControlPlane, account: str, settings: dict[str, str]) -> Child:
    """A process with a name, a program and a log, that is a service account of the name space in its settings."""
    name, program, log = child
    kubeconfig = cluster.kubeconfig(settings["NAMESPACE"], account)
    return Child(
        name,
        [program],
        log=log,
        ready=lambda started: any(words in started.log_tail(lines=500) for words in _READY),
        env=plain_environment() | settings | {"KUBECONFIG": str(kubeconfig)},
    )


def mark_ready(api: Api, source: Manifest, sink: str) -> None:
    """Write into a source's status what its controller writes once it knows the address of the sink."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": now}
    api.set_status(source, {"sinkUri": sink, "conditions": [condition]})
