"""The admission webhooks of Knative Serving and Eventing: they set defaults and check rules beyond the schemas.

The server finds a webhook by a Service that points to loopback. The Kafka source's webhook is missing: its Go module
is not published.
"""

from dataclasses import dataclass
from pathlib import Path

from dev.process.child import Child, free_port, plain_environment
from tests.kubernetes import knative
from tests.kubernetes.api import Api, Manifest
from tests.kubernetes.control_plane import ControlPlane

_REGISTRATIONS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Webhook:
    """A webhook of Knative with the names of its release."""

    component: str
    name: str
    account: str

    @property
    def program(self) -> str:
        """The name in `golang.PROGRAMS`."""
        return f"{self.component}-webhook"

    @property
    def namespace(self) -> str:
        """The name space of the component."""
        return f"knative-{self.component}"

    @property
    def registrations(self) -> tuple[str, str]:
        """The registrations for objects of users. Those for Knative's settings and for other pods are left out."""
        return f"webhook.{self.component}.knative.dev", f"validation.webhook.{self.component}.knative.dev"


SERVING = Webhook("serving", "webhook", "controller")
EVENTING = Webhook("eventing", "eventing-webhook", "eventing-webhook")


def admission(webhook: Webhook, program: Path, cluster: ControlPlane, *, log: Path) -> Child:
    """Return the webhook's process, not started. It is ready when the server calls it for its kinds."""
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
    """Apply the webhook's objects of the release, and its address. Return its registrations."""
    objects = list(knative.objects(webhook.component))
    wanted = {("Secret", f"{webhook.name}-certs"), ("ServiceAccount", webhook.account)}
    api.apply_all(item for item in objects if item["kind"] == "Namespace")
    api.apply_all(item for item in objects if item["kind"] == "ConfigMap" or knative.identity(item) in wanted)
    api.apply_all([_administrator(webhook), _service(webhook)])
    named = {(kind, name) for kind in _REGISTRATIONS for name in webhook.registrations}
    registrations = [_at_port(item, port) for item in objects if knative.identity(item) in named]
    api.apply_all(registrations)
    return registrations


def _administrator(webhook: Webhook) -> Manifest:
    """Return a binding with all rights: the controller that aggregates the account's own role is missing."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"local-{webhook.program}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": webhook.account, "namespace": webhook.namespace}],
    }


def _service(webhook: Webhook) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": webhook.name, "namespace": webhook.namespace},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    }


def _at_port(registration: Manifest, port: int) -> Manifest:
    """Return the registration with the webhook's port in place of 443."""
    webhooks = []
    for found in registration["webhooks"]:
        service = found["clientConfig"]["service"] | {"port": port}
        webhooks.append(found | {"clientConfig": {"service": service}})
    return registration | {"webhooks": webhooks}


def _is_registered(api: Api, registration: Manifest) -> bool:
    """Return True if the process has written its rules and its certificate."""
    found = api.get(registration)["webhooks"]
    return all(webhook.get("rules") and webhook["clientConfig"].get("caBundle") for webhook in found)
