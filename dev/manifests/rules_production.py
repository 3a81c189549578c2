"""Rules over production alone: who calls is known, and what goes over the network is closed to others."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import parse_qs, urlsplit

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called
from dev.manifests.rules_settings import environment, secrets_of

SASL = {"KAFKA_SASL_USERNAME": ("kafka", "user"), "KAFKA_SASL_PASSWORD": ("kafka", "password")}


def nobody_is_let_in_without_a_token(rendered: Rendered, _: Project) -> Iterator[str]:
    """`AUTH: "off"` is for the local overlay."""
    for thing, spec in _pods(rendered):
        if (said := environment(rendered, spec).get("AUTH")) != "on":
            yield f"{called(thing)}: AUTH is {said}, and not on"


def mongodb_is_reached_by_tls(rendered: Rendered, _: Project) -> Iterator[str]:
    """And believed by a certificate that is in the pod."""
    for thing, spec in _pods(rendered):
        options = parse_qs(urlsplit(environment(rendered, spec).get("MONGODB_URI", "")).query)
        if options.get("tls") != ["true"]:
            yield f"{called(thing)}: MongoDB is reached without TLS (tls=true in ConfigMap mongodb)"
        if not _is_mounted(spec, "mongodb-ca", *options.get("tlsCAFile", [""])):
            yield f"{called(thing)}: tlsCAFile is not in the Secret mongodb-ca, as it is mounted"


def kafka_is_reached_as_a_user(rendered: Rendered, project: Project) -> Iterator[str]:
    """By those that send, and by set-up, which makes the topic; over TLS, by `kafka_is_reached_as_production_wants`."""
    for thing, spec in _pods(rendered):
        if thing["kind"] != "Job" and thing["metadata"]["name"].replace("-", "_") not in project.senders:
            continue
        for name, where in SASL.items():
            if secrets_of(thing).get(name) != where:
                yield f"{called(thing)}: {name} is not {where[1]} of Secret {where[0]}"
        if not _is_mounted(spec, "kafka", environment(rendered, spec).get("KAFKA_SSL_CAFILE", "")):
            yield f"{called(thing)}: KAFKA_SSL_CAFILE is not in the Secret kafka, as it is mounted"


def _pods(rendered: Rendered) -> Iterator[tuple[Object, Object]]:
    if rendered.overlay == "production":
        yield from rendered.pods()


def _is_mounted(spec: Object, secret: str, file: str) -> bool:
    """Whether `file` is a key of that Secret, where the pod's first container has it."""
    path = PurePosixPath(file)
    for mount in spec["containers"][0].get("volumeMounts", []):
        for volume in spec.get("volumes", []):
            held = volume.get("secret", {})
            keys = [item["path"] for item in held.get("items", [])] or ["ca.crt"]
            if (mount["name"], mount["mountPath"]) == (volume["name"], str(path.parent)):
                return bool(held.get("secretName") == secret and path.name in keys)
    return False


RULES = (nobody_is_let_in_without_a_token, mongodb_is_reached_by_tls, kafka_is_reached_as_a_user)
