"""Rules for functions: each function has a Knative Service, an image, a database user and the right visibility."""

from collections.abc import Iterator, Mapping

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered, called, containers, differences
from dev.manifests.rules_settings import environment, secret_value

OPEN = frozenset({"publish", "query", "admin", "audit"})
"""The functions that ask for a token: their callers are people and systems."""

PUBLIC = frozenset({"publish", "query"})
"""The functions with an address outside the cluster. Another function of `OPEN` has one if `CHOSEN` says so."""

CHOSEN = "twofold.dev/public"
"""The annotation with `true` on a function of `OPEN` that an overlay makes public."""

OPERATOR = "operator"
"""The Deployment, the image and the database user of the command line."""

LOCAL_SERVERS = frozenset({"mongo", "apache/kafka"})
"""Images that skaffold.yaml does not build. Only the local overlay uses them."""

ALWAYS_THERE = frozenset({"store", "pod_events"})
"""The functions that keep a pod: their sources do not wait while a pod starts."""

_LOCAL = ("networking.knative.dev/visibility", "cluster-local")


def require_services(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require a Knative Service, and an artifact in skaffold.yaml, for exactly the functions in functions/."""
    for name in sorted(project.functions ^ rendered.functions.keys()):
        yield f"functions/{name}/main.py or its Knative Service is missing: write knative/base/{name}.yaml"
    for name in sorted((project.functions | {OPERATOR}) ^ set(project.artifacts.values())):
        yield f"functions/{name}/main.py or its artifact is missing: add FUNCTION: {name} to skaffold.yaml"


def require_images(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require the image of the function, at the version of the project."""
    for name, service in rendered.functions.items():
        image = service["spec"]["template"]["spec"]["containers"][0]["image"]
        if project.artifacts.get(image.partition(":")[0]) != name:
            yield f"{called(service)}: runs {image}, and skaffold.yaml builds another image of functions/{name}"
    for thing, spec in rendered.pods():
        for image, _, tag in [container["image"].partition(":") for container in containers(spec)]:
            if image not in project.artifacts and not (rendered.overlay == "local" and image in LOCAL_SERVERS):
                yield f"{called(thing)}: skaffold.yaml builds no image {image}"
            elif tag in ("", "latest") or (image in project.artifacts and tag != project.version):
                yield f"{called(thing)}: the tag of {image} is {tag or 'missing'}: use {project.version} for functions"


def require_visibility(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require `cluster-local` for the functions outside `PUBLIC`: a caller of a sink can write events.

    An overlay can choose to make `admin` and `audit` public.
    """
    for name, service in rendered.functions.items():
        chosen = service["metadata"].get("annotations", {}).get(CHOSEN) == "true"
        is_public = name in PUBLIC or (name in OPEN and chosen)
        if (_LOCAL in service["metadata"].get("labels", {}).items()) == is_public:
            yield f"{called(service)}: {'remove' if is_public else 'add'} the label {': '.join(_LOCAL)}"
        if chosen and name not in OPEN:
            yield f"{called(service)}: remove the annotation {CHOSEN}: it asks for no token"


def require_scale(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require limits, a pod of each function in `ALWAYS_THERE`, and no concurrency limit where requests share a write.

    Without its annotation, or with 0, Knative's `max-scale` is no limit.
    """
    for name, service in rendered.functions.items():
        template = service["spec"]["template"]
        annotations = template["metadata"].get("annotations", {})
        least, most = (annotations.get(f"autoscaling.knative.dev/{bound}-scale", "0") for bound in ("min", "max"))
        if most == "0" or "containerConcurrency" not in template["spec"]:
            yield f"{called(service)}: max-scale must be 1 or more, and containerConcurrency must be there"
        if name in ALWAYS_THERE and least == "0":
            yield f"{called(service)}: min-scale must be 1 or more: its source does not wait while a pod starts"
        if name in project.gatherers and template["spec"].get("containerConcurrency") != 0:
            yield f"{called(service)}: containerConcurrency must be 0: requests that wait share one write"


def require_users(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require a MongoDB user for each function, with its own role, and a password that the set-up reads too."""
    passwords = {
        role: secret_value(rendered, f"mongodb-{role.replace('_', '-')}", "password") for role in project.roles
    }
    wanted = {f"MONGODB_PASSWORD_{role.upper()}": passwords[role] for role in sorted(passwords)}
    for job in rendered.of("Job"):
        yield from differences(job, environment(rendered, job["spec"]["template"]["spec"]), wanted)
    servers, database = rendered.data("mongodb"), rendered.data("settings")["MONGODB_DATABASE"]
    for name, service in rendered.functions.items():
        if name not in project.roles:
            yield f"{called(service)}: shared/twofold/setup/roles.py has no role {name}"
        uri = {"MONGODB_URI": _uri(servers, database, name, passwords.get(name))}
        yield from differences(service, environment(rendered, service["spec"]["template"]["spec"]), uri)


def require_operator(rendered: Rendered, project: Project) -> Iterator[str]:
    """Require a place to run `twofold`: a Deployment with its image and the operator's database user."""
    deployment = rendered.named("Deployment", OPERATOR)
    if deployment is None:
        yield f"Deployment {OPERATOR} is missing: `twofold` has no place in the cluster"
        return
    spec = deployment["spec"]["template"]["spec"]
    image = spec["containers"][0]["image"]
    if project.artifacts.get(image.partition(":")[0]) != OPERATOR:
        yield f"{called(deployment)}: runs {image}, and this image has no command line"
    password = secret_value(rendered, f"mongodb-{OPERATOR}", "password")
    uri = _uri(rendered.data("mongodb"), rendered.data("settings")["MONGODB_DATABASE"], OPERATOR, password)
    yield from differences(deployment, environment(rendered, spec), {"MONGODB_URI": uri})


def _uri(servers: Mapping[str, str], database: str, user: str, password: str | None) -> str:
    return f"mongodb://{user}:{password}@{servers['hosts']}/?authSource={database}&{servers['options']}"
