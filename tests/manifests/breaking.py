"""Manifests broken on purpose: one wrong change each, and the rule that must notice."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from dev.manifests.check import Rule, said
from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered

Overlays = Mapping[str, Rendered]


@dataclass(frozen=True)
class Broken:
    """One wrong change to an overlay, and the rule that must notice."""

    rule: Rule
    what: str
    change: Callable[[Rendered], object]
    says: str
    """What the complaint has in it."""
    overlay: str = "production"

    def complaints(self, overlays: Overlays, project: Project) -> list[str]:
        """What the rule says of a copy that is broken."""
        rendered = deepcopy(overlays[self.overlay])
        self.change(rendered)
        return list(said(self.rule, rendered, project))

    def __str__(self) -> str:
        return f"{self.rule.__name__}: {self.what}"


def service(rendered: Rendered, name: str = "store") -> Any:
    return rendered.functions[name]


def pod(rendered: Rendered, name: str = "store") -> Any:
    return service(rendered, name)["spec"]["template"]["spec"]


def container(rendered: Rendered, name: str = "store") -> Any:
    return pod(rendered, name)["containers"][0]


def env(rendered: Rendered, variable: str, name: str = "store") -> Any:
    return _variable(container(rendered, name), variable)


def env_of_setup(rendered: Rendered, variable: str) -> Any:
    return _variable(setup(rendered)["containers"][0], variable)


def _variable(container: Any, name: str) -> Any:
    return next(found for found in container["env"] if found["name"] == name)


def source(rendered: Rendered, kind: str = "KafkaSource") -> Any:
    return rendered.of(kind)[0]["spec"]


def delivery(rendered: Rendered) -> Any:
    return source(rendered)["delivery"]


def annotations(rendered: Rendered, name: str = "store") -> Any:
    return service(rendered, name)["spec"]["template"]["metadata"]["annotations"]


def setup(rendered: Rendered) -> Any:
    return the(rendered, "Job", "setup")["spec"]["template"]["spec"]


def settings(rendered: Rendered) -> Any:
    return config_map(rendered, "settings")["data"]


def config_map(rendered: Rendered, name: str) -> Any:
    """A ConfigMap, whatever hash its name ends in."""
    found = rendered.config_map(name)
    assert found is not None
    return found


def the(rendered: Rendered, kind: str, name: str) -> Any:
    found = rendered.named(kind, name)
    assert found is not None
    return found


def remove(rendered: Rendered, kind: str, name: str) -> None:
    list_of(rendered).remove(the(rendered, kind, name))


def gone(kind: str, name: str) -> Callable[[Rendered], object]:
    """The change that takes an object out."""
    return lambda rendered: remove(rendered, kind, name)


def list_of(rendered: Rendered) -> list[Object]:
    assert isinstance(rendered.objects, list)
    return rendered.objects


def without(part: Callable[[Rendered], Any], name: str) -> Callable[[Rendered], object]:
    """The change that takes `name` out of `part`."""
    return lambda rendered: part(rendered).pop(name)


def grant(rendered: Rendered, kind: str, account: str, rule: Object) -> None:
    """Let a service account do something."""
    meta = {"name": "more", "namespace": "twofold"}
    list_of(rendered).append({"apiVersion": "v1", "kind": kind, "metadata": meta, "rules": [rule]})
    bind(rendered, kind, account, "more")


def bind(rendered: Rendered, kind: str, account: str, role: str) -> None:
    """Give a service account a role."""
    list_of(rendered).append(
        {
            "apiVersion": "v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": "more", "namespace": "twofold"},
            "roleRef": {"kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "twofold"}],
        }
    )
