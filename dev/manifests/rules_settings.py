"""Rules for settings: names are fields of `Settings`, values are valid, and secrets stay in Secrets."""

import re
from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import SecretStr, ValidationError

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called, containers, function_of, without_hash
from twofold.read.feed import MAX_WAIT_S
from twofold.settings import Settings

NO_SETTINGS = re.compile(
    r"FUNCTION_|OTEL_|PYTHON|SSL_CERT_|(HOST|PORT|WORKERS|GUNICORN_LOG_LEVEL)$|MONGODB_(HOSTS$|OPTIONS$|PASSWORD)"
)
"""Variables of functions-framework, OpenTelemetry, Python and OpenSSL, and the parts of MONGODB_URI."""

_REFERENCE = re.compile(r"\$\((\w+)\)")
_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/]*:[^/]*@")
_KINDS = {"configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}
_FIELDS = {name.upper(): field for name, field in Settings.model_fields.items()}
_SECRETS = {name for name, field in _FIELDS.items() if SecretStr in (field.annotation, *get_args(field.annotation))}


def require_field_names(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require field names: `Settings` ignores an unknown name. Production shows every field except secrets."""
    shown: set[str] = set()
    for thing, env in _environments(rendered):
        names = {name for name in env if not NO_SETTINGS.match(name)}
        shown |= names
        for name in sorted(names - _FIELDS.keys()):
            yield f"{called(thing)}: {name} is no setting of shared/twofold/settings.py"
    for name in sorted(_FIELDS.keys() - shown - _SECRETS) if rendered.overlay == "production" else []:
        yield f'{name} is in no manifest: put {name}: "{_FIELDS[name].default}" into knative/base/settings.yaml'


def require_defaults(_: Rendered, project: Project) -> Iterator[str]:
    """Require the defaults of the code in knative/base. An overlay may set another value."""
    for name in sorted(project.base_settings.keys() & _FIELDS.keys()):
        value, default = project.base_settings[name], _FIELDS[name].default
        if getattr(_settings({name: value}), name.lower()) != default:
            yield f"knative/base/settings.yaml: {name} is {value}, and its default is {default}"


def require_valid_values(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require values that `Settings` accepts. A reference needs a variable above its own."""
    for thing, env in _environments(rendered):
        for name, value in env.items():
            if _REFERENCE.search(value):
                yield f"{called(thing)}: {name} uses {value}, which must stand above it"
        try:
            Settings.model_validate({name.lower(): value for name, value in env.items() if name in _FIELDS})
        except ValidationError as error:
            for found in error.errors():
                yield f"{called(thing)}: {'.'.join(map(str, found['loc'])).upper()}: {found['msg']}"


def require_timeouts(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require a Knative timeout that is longer than the budget of the function."""
    for thing, env in _environments(rendered):
        if thing["kind"] != "Service":
            continue
        settings = _settings({name: value for name, value in env.items() if name in _FIELDS})
        budgets = {
            "relay": settings.relay_budget_s,
            "pod_events": settings.pods_budget_s,
            "query": settings.stream_s,
            "audit": MAX_WAIT_S,
            "admin": max(settings.export_timeout_s, settings.statistics_timeout_s),
        }
        budget = budgets.get(function_of(thing), settings.mongodb_timeout_s)
        if thing["spec"]["template"]["spec"].get("timeoutSeconds", 0) <= budget:
            yield f"{called(thing)}: timeoutSeconds must be more than its budget of {budget:g} s"


def require_references(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require `settings`, and an object for each name in a pod spec. Secrets of production are not in the tree.

    The name of a ConfigMap needs a hash of its content: without a new name, a running pod never reads a changed value.
    """
    for thing, spec in rendered.pods():
        if thing["kind"] == "StatefulSet":
            continue
        named = {("Namespace", thing["metadata"]["namespace"]), ("ServiceAccount", spec["serviceAccountName"])}
        named |= {(_KINDS[member], ref["name"]) for source in _sources(spec) for member, ref in source.items()}
        if ("ConfigMap", "settings") not in {(kind, without_hash(name)) for kind, name in named}:
            yield f"{called(thing)}: envFrom lacks the ConfigMap settings"
        for kind, name in sorted(named):
            if (kind, rendered.overlay) != ("Secret", "production") and rendered.named(kind, name) is None:
                yield f"{called(thing)}: {kind} {name} is not in the overlay"
            elif kind == "ConfigMap" and name == without_hash(name):
                yield f"{called(thing)}: the name of ConfigMap {name} lacks the hash: see knative/base/names.yaml"


def _sources(spec: Object) -> Iterator[Object]:
    """Yield the references of the containers to ConfigMaps and Secrets."""
    for container in containers(spec):
        yield from container.get("envFrom", [])
        yield from (variable.get("valueFrom", {}) for variable in container.get("env", []))


def require_secrets(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require references to Secrets in place of passwords. Secrets of production are not in the tree."""
    for secret in rendered.of("Secret") if rendered.overlay != "local" else []:
        yield f"{called(secret)}: remove it from the tree: only the local overlay has Secrets"
    for config_map in rendered.of("ConfigMap"):
        for name, value in sorted(config_map.get("data", {}).items()):
            if name in _SECRETS or _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
                yield f"{called(config_map)}: move {name} into a Secret"
    for thing, spec in rendered.pods():
        for variable in [variable for container in containers(spec) for variable in container.get("env", [])]:
            if "value" in variable and _SECRET_NAME.search(variable["name"]):
                yield f"{called(thing)}: {variable['name']} must come from a Secret"


def environment(rendered: Rendered, spec: Object) -> dict[str, str]:
    """Return the variables of the first container, with the references resolved as the kubelet does."""
    container = spec["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= rendered.data(source["configMapRef"]["name"])
    for variable in container.get("env", []):
        value = _value(rendered, variable)
        found[variable["name"]] = _REFERENCE.sub(lambda match: found.get(match[1], match[0]), value)
    return found


def _value(rendered: Rendered, variable: Object) -> str:
    if "value" in variable:
        return str(variable["value"])
    ((kind, ref),) = variable["valueFrom"].items()
    if kind == "configMapKeyRef":
        return rendered.data(ref["name"])[ref["key"]]
    return secret_value(rendered, ref["name"], ref["key"])


def secret_value(rendered: Rendered, name: str, key: str) -> str:
    """Return the value in a Secret of the overlay, or `<name/key>` for a Secret outside the overlay."""
    secret = rendered.named("Secret", name)
    return str(secret["stringData"][key]) if secret else f"<{name}/{key}>"


def _environments(rendered: Rendered) -> Iterator[tuple[Object, Mapping[str, str]]]:
    """Yield each Service, Job and Deployment with its variables."""
    for thing, spec in rendered.pods():
        if thing["kind"] in ("Service", "Job", "Deployment"):
            yield thing, environment(rendered, spec)


def _settings(values: Mapping[str, object]) -> Settings:
    given = {"mongodb_uri": "mongodb://localhost"} | {name.lower(): value for name, value in values.items()}
    return Settings.model_validate(given)
