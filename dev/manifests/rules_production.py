"""Rules for the production overlay: callers have tokens, connections have TLS, and the topic has replicas."""

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlsplit

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, differences, mounts
from dev.manifests.rules_functions import OPEN
from dev.manifests.rules_settings import environment

HTTPS = {"networking.knative.dev/http-protocol": "redirected"}
"""The annotation with which Knative redirects plain HTTP."""

SASL = {"KAFKA_SASL_USERNAME": "<kafka/user>", "KAFKA_SASL_PASSWORD": "<kafka/password>"}
"""The variables of a Kafka user, with their Secret and key."""


def require_tokens(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require `AUTH=on`: `AUTH=off` is for the local overlay."""
    for thing, env in _environments(rendered):
        yield from differences(thing, env, {"AUTH": "on"})


def require_tls(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require TLS for MongoDB, and TLS and a user for Kafka, of each process that connects."""
    for thing, env in _environments(rendered):
        options = dict(parse_qsl(urlsplit(env["MONGODB_URI"]).query))
        private_ca = {"tlsCAFile": "/etc/twofold/mongodb/ca.crt"} if "tlsCAFile" in options else {}
        yield from differences(thing, options, {"tls": "true"} | private_ca)
        if private_ca:
            mounted = mounts(thing["spec"]["template"]["spec"]).get("/etc/twofold/mongodb", {})
            yield from differences(thing, mounted, {"secret": {"secretName": "mongodb-ca"}})
        if thing["kind"] in ("Job", "Deployment") or thing["metadata"]["name"].replace("-", "_") in project.senders:
            yield from differences(thing, env, {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"} | SASL)
    for source in rendered.of("KafkaSource") if rendered.overlay == "production" else []:
        for part in ("sasl", "tls"):
            yield from differences(source, source["spec"]["net"].get(part, {}), {"enable": True})


def require_https(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require HTTPS of callers from outside: they send tokens."""
    for name, service in rendered.functions.items() if rendered.overlay == "production" else []:
        if name in OPEN:
            yield from differences(service, service["metadata"].get("annotations", {}), HTTPS)


def require_replicas(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require acknowledged records on two brokers, and a topic that stays writable without one broker."""
    settings = rendered.data("settings")
    in_sync, replicas = (int(settings[f"SETUP_TOPIC_{name}"]) for name in ("MIN_INSYNC_REPLICAS", "REPLICATION"))
    if rendered.overlay == "production" and not 2 <= in_sync < replicas:
        yield f"ConfigMap settings: {in_sync} of {replicas} replicas in sync: at least 2 must be, and fewer than all"


def _environments(rendered: Rendered) -> Iterator[tuple[Object, Mapping[str, str]]]:
    for thing, spec in rendered.pods() if rendered.overlay == "production" else []:
        yield thing, environment(rendered, spec)
