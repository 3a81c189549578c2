"""Parts of a rendered overlay, for tests that break a manifest."""

from collections.abc import Callable, Mapping
from typing import Any

from dev.manifests.rendering import Object, Rendered

Overlays = Mapping[str, Rendered]
Change = Callable[[Rendered], object]


def service(rendered: Rendered, name: str = "store") -> Any:
    return rendered.functions[name]


def pod(rendered: Rendered, name: str = "store") -> Any:
    return service(rendered, name)["spec"]["template"]["spec"]


def container(rendered: Rendered, name: str = "store") -> Any:
    return pod(rendered, name)["containers"][0]


def annotations(rendered: Rendered, name: str = "store") -> Any:
    return service(rendered, name)["spec"]["template"]["metadata"]["annotations"]


def env(rendered: Rendered, variable: str, name: str = "store") -> Any:
    return next(found for found in container(rendered, name)["env"] if found["name"] == variable)


def source(rendered: Rendered, kind: str = "KafkaSource") -> Any:
    return rendered.of(kind)[0]["spec"]


def delivery(rendered: Rendered) -> Any:
    return source(rendered)["delivery"]


def setup(rendered: Rendered) -> Any:
    return the(rendered, "Job", "setup")["spec"]["template"]["spec"]


def operator(rendered: Rendered) -> Any:
    return the(rendered, "Deployment", "operator")["spec"]["template"]["spec"]


def settings(rendered: Rendered) -> Any:
    return config_map(rendered, "settings")["data"]


def config_map(rendered: Rendered, name: str) -> Any:
    """Return the ConfigMap with this name before the hash."""
    found = rendered.config_map(name)
    assert found is not None
    return found


def the(rendered: Rendered, kind: str, name: str) -> Any:
    found = rendered.named(kind, name)
    assert found is not None
    return found


def list_of(rendered: Rendered) -> list[Object]:
    assert isinstance(rendered.objects, list)
    return rendered.objects


def gone(kind: str, name: str) -> Change:
    """Make a change that removes an object."""
    return lambda rendered: list_of(rendered).remove(the(rendered, kind, name))


def without(part: Callable[[Rendered], Any], name: str) -> Change:
    """Make a change that removes the member `name` of `part`."""
    return lambda rendered: part(rendered).pop(name)


def granted(account: str, rule: Object) -> Change:
    """Make a change that gives a service account a new role with one rule."""
    meta = {"name": "more", "namespace": "twofold"}
    role = {"apiVersion": "v1", "kind": "Role", "metadata": meta, "rules": [rule]}

    def change(rendered: Rendered) -> None:
        list_of(rendered).append(role)
        bound(account, "Role", "more")(rendered)

    return change


def bound(account: str, kind: str, role: str) -> Change:
    """Make a change that binds a role to a service account."""
    binding = {
        "apiVersion": "v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": "more", "namespace": "twofold"},
        "roleRef": {"kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "twofold"}],
    }
    return lambda rendered: list_of(rendered).append(binding)
