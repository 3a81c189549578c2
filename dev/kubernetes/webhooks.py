"""Knative's own admission: the webhooks of Serving and Eventing, which default and validate what the schemas can't.

The server finds each by a Service that points to loopback. The Kafka source's webhook is not among them: its module
is not to be had.
"""

from dataclasses import dataclass
from pathlib import Path

from dev.functions import plain_environment
from dev.kubernetes import knative
from dev.kubernetes.api import Api, Manifest
from dev.kubernetes.control_plane import ControlPlane
from dev.processes import Child, free_port

_REGISTRATIONS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Webhook:
    """One of Knative's webhooks, with the names that its release gives it."""

    program: str
    manifests: str
    namespace: str
    name: str
    account: str
    registrations: tuple[str, ...]
    """Those that are used: what makes sure of Knative's own settings, and what changes others' pods, is not."""

    @property
    def secret(self) -> str:
        """Where it keeps its certificate."""
        return f"{self.name}-certs"


SERVING = Webhook(
    "serving-webhook",
    "serving",
    "knative-serving",
    "webhook",
    "controller",
    ("webhook.serving.knative.dev", "validation.webhook.serving.knative.dev"),
)
EVENTING = Webhook(
    "eventing-webhook",
    "eventing",
    "knative-eventing",
    "eventing-webhook",
    "eventing-webhook",
    ("webhook.eventing.knative.dev", "validation.webhook.eventing.knative.dev"),
)


def admission(webhook: Webhook, program: Path, cluster: ControlPlane, *, log: Path) -> Child:
    """The webhook's process, not started. It is ready when the server asks it about each object that it is for."""
    port = free_port()
    registrations = _install(cluster.api, webhook, port)
    settings = {
        "SYSTEM_NAMESPACE": webhook.namespace,
        "POD_NAME": webhook.name,
        "WEBHOOK_NAME": webhook.name,
        "WEBHOOK_PORT": str(port),
        "CONFIG_LOGGING_NAME": "config-logging",
        "CONFIG_OBSERVABILITY_NAME": "config-observability",
        "METRICS_DOMAIN": "knative.dev/local",
        "KUBECONFIG": str(cluster.kubeconfig(webhook.namespace, webhook.account)),
    }
    return Child(
        webhook.program,
        [program],
        log=log,
        ready=lambda _: all(_is_registered(cluster.api, found) for found in registrations),
        ready_within=READY_WITHIN_S,
        env=plain_environment() | settings,
    )


def _install(api: Api, webhook: Webhook, port: int) -> list[Manifest]:
    """What the release has for the webhook, and how the server comes to it. Returns its registrations."""
    objects = list(knative.objects(webhook.manifests))
    api.apply_all(item for item in objects if item["kind"] == "Namespace")
    api.apply_all(item for item in objects if item["kind"] == "ConfigMap")
    api.apply_all(item for item in objects if _is(item, "Secret", webhook.secret))
    api.apply_all(item for item in objects if _is(item, "ServiceAccount", webhook.account))
    api.apply(_all_rights(webhook))
    api.apply(_on_loopback(webhook))
    registrations = [_at_port(item, port) for item in objects if _is(item, _REGISTRATIONS, webhook.registrations)]
    api.apply_all(registrations)
    return registrations


def _is(item: Manifest, kinds: str | tuple[str, ...], names: str | tuple[str, ...]) -> bool:
    kinds, names = ((value,) if isinstance(value, str) else value for value in (kinds, names))
    return item["kind"] in kinds and item["metadata"]["name"] in names


def _all_rights(webhook: Webhook) -> Manifest:
    """For its account: a controller that is not here would put its role together from others."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"local-{webhook.program}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": webhook.account, "namespace": webhook.namespace}],
    }


def _on_loopback(webhook: Webhook) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": webhook.name, "namespace": webhook.namespace},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    }


def _at_port(registration: Manifest, port: int) -> Manifest:
    """The registration, with the webhook's port in place of 443."""
    webhooks = []
    for found in registration["webhooks"]:
        service = found["clientConfig"]["service"] | {"port": port}
        webhooks.append(found | {"clientConfig": {"service": service}})
    return registration | {"webhooks": webhooks}


def _is_registered(api: Api, registration: Manifest) -> bool:
    """Whether the process has written what it is for, and the certificate that the server is to trust."""
    found = api.get(registration)["webhooks"]
    return all(webhook.get("rules") and webhook["clientConfig"].get("caBundle") for webhook in found)
