"""Rules over settings and users: names are those of `Settings`, values are taken, each function is its own user."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from pydantic import SecretStr, ValidationError

from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called, function_of, without_hash
from twofold.read.feed import MAX_WAIT_S
from twofold.settings import Settings

FRAMEWORK = re.compile(r"FUNCTION_|OTEL_|PYTHON|(HOST|PORT|WORKERS|GUNICORN_LOG_LEVEL)$")
"""Variables of functions-framework, OpenTelemetry and Python: no settings of ours."""

_REFERENCE = re.compile(r"\$\((\w+)\)")
_FIELDS = {name.upper(): field for name, field in Settings.model_fields.items()}
_SECRETS = {name for name, field in _FIELDS.items() if SecretStr in (field.annotation, *get_args(field.annotation))}
_URI = re.compile(
    r"mongodb://(\w+):\$\(MONGODB_PASSWORD\)@\$\(MONGODB_HOSTS\)/\?authSource=(\w+)&\$\(MONGODB_OPTIONS\)$"
)


def settings_are_the_fields(overlays: Sequence[Rendered], _: Project) -> Iterator[str]:
    """All but secrets, and nothing else: a name that `Settings` doesn't know is ignored by it, however it is spelt."""
    named: set[str] = set()
    for rendered in overlays:
        for thing, _spec, env in _environments(rendered):
            helpers = {name for value in env.values() for name in _REFERENCE.findall(str(value))}
            names = {name for name in env if name not in helpers and not _of_setup(name) and not FRAMEWORK.match(name)}
            named |= names
            for name in sorted(names - _FIELDS.keys()):
                yield f"{rendered.overlay}, {called(thing)}: {name} is no setting: shared/twofold/settings.py has none"
    for name in sorted(_FIELDS.keys() - named - _SECRETS):
        default = _FIELDS[name].default
        yield f'{name} is a setting, and in no manifest: put {name}: "{default}" into knative/base/settings.yaml'


def base_says_the_defaults(_: Sequence[Rendered], project: Project) -> Iterator[str]:
    """A default that changes in the code alone would never arrive in a cluster; an overlay's own value may differ."""
    for name, value in project.base_settings.items():
        if name not in _FIELDS:
            continue  # that is another rule's complaint
        try:
            said = getattr(_settings({name: value}), name.lower())
        except ValidationError:
            said = value
        if said != _FIELDS[name].default:
            yield f"knative/base/settings.yaml: {name} is {value}, and its default {_FIELDS[name].default}"


def settings_are_taken(rendered: Rendered, _: Project) -> Iterator[str]:
    """Each pod of ours starts: what it is given is complete and of the right kind."""
    for thing, _spec, env in _environments(rendered):
        try:
            Settings.model_validate({name.lower(): value for name, value in env.items() if name in _FIELDS})
        except ValidationError as error:
            for found in error.errors():
                yield f"{called(thing)}: {'.'.join(map(str, found['loc'])).upper()}: {found['msg']}"


def time_outs_fit_into_each_other(rendered: Rendered, _: Project) -> Iterator[str]:
    """A function has its say before Knative cuts it off."""
    for thing, spec, env in _environments(rendered):
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
        takes = budgets.get(function_of(thing), settings.mongodb_timeout_s)
        if spec.get("timeoutSeconds", 0) <= takes:
            yield f"{called(thing)}: timeoutSeconds is not more than the {takes:g} s that it may take"


def each_function_is_a_user_of_its_own(rendered: Rendered, project: Project) -> Iterator[str]:
    """With the password of a Secret that setup reads too."""
    setup = rendered.named("Job", "setup")
    made = secrets_of(setup) if setup else {}
    for role in sorted(project.roles):
        if made.get(f"MONGODB_PASSWORD_{role.upper()}") != (_secret(role), "password"):
            yield (
                f"Job setup: MONGODB_PASSWORD_{role.upper()} is not the password of Secret {_secret(role)}: name it in "
                f"knative/base/setup.yaml, and make that Secret in knative/overlays/local/secrets.yaml"
            )
    for name, service in rendered.functions.items():
        if name not in project.roles:
            yield f"{called(service)}: shared/twofold/setup.py has no role {name}"
        env = {variable["name"]: variable for variable in _container(service).get("env", [])}
        match = _URI.match(str(env.get("MONGODB_URI", {}).get("value")))
        database = rendered.data("settings").get("MONGODB_DATABASE")
        if match is None or match.groups() != (name, database):
            yield f"{called(service)}: MONGODB_URI is not that of the user {name}, authSource {database}"
        if secrets_of(service).get("MONGODB_PASSWORD") != (_secret(name), "password"):
            yield f"{called(service)}: MONGODB_PASSWORD is not the password of Secret {_secret(name)}"
        order = [variable for variable in env if variable.startswith("MONGODB_")]
        if order and order[-1] != "MONGODB_URI":
            yield f"{called(service)}: MONGODB_URI stands before what it is put together from: {order}"


def references_lead_somewhere(rendered: Rendered, _: Project) -> Iterator[str]:
    """ConfigMaps and ServiceAccounts are there, and so are Secrets in the local overlay, which brings its own.

    So are the variables that others are put together from: Kubernetes leaves a `$(NAME)` that leads nowhere as it is.
    """
    for thing, spec in rendered.pods():
        if rendered.named("ServiceAccount", spec.get("serviceAccountName", "")) is None and _is_ours(thing):
            yield f"{called(thing)}: there is no ServiceAccount {spec.get('serviceAccountName')}"
        for kind, name, key in _references(spec):
            if kind == "Secret" and rendered.overlay != "local":
                continue
            found = rendered.named(kind, name)
            held = {**found.get("data", {}), **found.get("stringData", {})} if found else {}
            if found is None or (key is not None and key not in held):
                yield f"{called(thing)}: there is no {kind} {name}{f' with {key}' if key else ''}"
        for container in spec["containers"]:
            above: set[str] = set()
            for variable in container.get("env", []):
                for name in sorted(set(_REFERENCE.findall(str(variable.get("value", "")))) - above):
                    yield f"{called(thing)}: {variable['name']} is put together from {name}, which is not above it"
                above.add(variable["name"])


def a_changed_setting_reaches_every_pod(rendered: Rendered, _: Project) -> Iterator[str]:
    """A pod reads its settings when it starts: only another name of the ConfigMap makes Knative start new ones."""
    for thing, spec in rendered.pods():
        if not _is_ours(thing):
            continue
        read = [name for kind, name, key in _references(spec) if kind == "ConfigMap" and key is None]
        if [without_hash(name) for name in read] != ["settings"]:
            yield f"{called(thing)}: envFrom is not the ConfigMap settings"
        for name in sorted({name for kind, name, _ in _references(spec) if kind == "ConfigMap"}):
            if without_hash(name) == name:
                yield f"{called(thing)}: ConfigMap {name} is not named by what it holds (configMapGenerator)"


def passwords_are_in_secrets(rendered: Rendered, _: Project) -> Iterator[str]:
    """Nothing secret stands in a manifest; production's Secrets are not in the tree at all."""
    if rendered.overlay != "local":
        for secret in rendered.of("Secret"):
            yield f"{called(secret)}: secrets of {rendered.overlay} don't belong into the tree"
    for thing, spec in rendered.pods():
        for container in spec["containers"]:
            for variable in container.get("env", []):
                if re.search("PASSWORD|SECRET|TOKEN", variable["name"]) and "secretKeyRef" not in variable.get(
                    "valueFrom", {}
                ):
                    yield f"{called(thing)}: {variable['name']} does not come from a Secret"
    for config_map in rendered.of("ConfigMap"):
        for name, value in config_map.get("data", {}).items():
            if name in _SECRETS or re.search("PASSWORD|SECRET", name.upper()) or re.search(r"://[^/]*:[^/]*@", value):
                yield f"{called(config_map)}: {name} belongs into a Secret"


def environment(rendered: Rendered, spec: Object) -> dict[str, str]:
    """A container's variables as the kubelet makes them, a Secret's values as `<secret/key>` where it isn't there."""
    container = spec["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= rendered.data(source["configMapRef"]["name"])
    declared: dict[str, str] = {}
    for variable in container.get("env", []):
        value = _value(rendered, variable)
        declared[variable["name"]] = _REFERENCE.sub(lambda match: declared.get(match[1], match[0]), value)
    return found | declared


def _value(rendered: Rendered, variable: Object) -> str:
    if "value" in variable:
        return str(variable["value"])
    ((kind, ref),) = variable["valueFrom"].items()
    if kind == "configMapKeyRef":
        return rendered.data(ref["name"]).get(ref["key"], "")
    secret = rendered.named("Secret", ref["name"])
    return str((secret or {}).get("stringData", {}).get(ref["key"], f"<{ref['name']}/{ref['key']}>"))


def _environments(rendered: Rendered) -> Iterator[tuple[Object, Object, Mapping[str, str]]]:
    """Of our own pods: what names each variable, and its value as it is written, references included."""
    for thing, spec in rendered.pods():
        if _is_ours(thing):
            raw = {variable["name"]: _value(rendered, variable) for variable in spec["containers"][0].get("env", [])}
            yield (
                thing,
                spec,
                environment(rendered, spec) | {name: value for name, value in raw.items() if _REFERENCE.search(value)},
            )


def _settings(values: Mapping[str, object]) -> Settings:
    given = {"mongodb_uri": "mongodb://localhost"} | {name.lower(): value for name, value in values.items()}
    return Settings.model_validate(given)


def _references(spec: Object) -> Iterator[tuple[str, str, str | None]]:
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for source in container.get("envFrom", []):
            for kind in ("configMapRef", "secretRef"):
                if kind in source:
                    yield _kind(kind), source[kind]["name"], None
        for variable in container.get("env", []):
            for kind, ref in variable.get("valueFrom", {}).items():
                yield _kind(kind), ref["name"], ref["key"]
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], None


def _kind(reference: str) -> str:
    return "ConfigMap" if reference.startswith("configMap") else "Secret"


def secrets_of(thing: Object) -> dict[str, tuple[str, str]]:
    """A container's variables that come from Secrets: name and key."""
    return {
        variable["name"]: (ref["name"], ref["key"])
        for variable in _container(thing).get("env", [])
        if (ref := variable.get("valueFrom", {}).get("secretKeyRef"))
    }


def _container(thing: Object) -> Object:
    found: Object = thing["spec"]["template"]["spec"]["containers"][0]
    return found


def _secret(role: str) -> str:
    return f"mongodb-{role.replace('_', '-')}"


def _is_ours(thing: Object) -> bool:
    return thing["kind"] in ("Service", "Job")


def _of_setup(name: str) -> bool:
    return name.startswith("MONGODB_PASSWORD_")


RULES = (
    settings_are_taken,
    time_outs_fit_into_each_other,
    each_function_is_a_user_of_its_own,
    references_lead_somewhere,
    a_changed_setting_reaches_every_pod,
    passwords_are_in_secrets,
)
RULES_OVER_ALL = (settings_are_the_fields, base_says_the_defaults)
