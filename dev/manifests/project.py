"""The facts of the code that manifests must match: functions, imports, images, roles, settings."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grimp
import yaml

from dev.paths import ROOT
from twofold.setup.roles import ROLES


@dataclass(frozen=True)
class Project:
    """The facts of a tree."""

    functions: frozenset[str]
    senders: frozenset[str]
    """The functions with a connection to Kafka. The readiness of every function imports parts of `twofold.kafka`."""
    gatherers: frozenset[str]
    """The functions with a group commit: several requests share one write."""
    artifacts: Mapping[str, str]
    """The function of each image in skaffold.yaml."""
    calls: Mapping[str, frozenset[tuple[str, str, str]]]
    """The calls of each function to the Kubernetes API, as (API group, resource, verb)."""
    roles: frozenset[str]
    """The database roles in twofold.setup: the set-up makes a user for each role."""
    base_settings: Mapping[str, str]
    """The settings in knative/base, before an overlay changes them."""
    version: str

    @classmethod
    def here(cls, root: Path = ROOT) -> Self:
        """Read the facts of this tree."""
        functions = frozenset(main.parent.name for main in root.glob("functions/*/main.py"))
        imports = grimp.build_graph("twofold", "functions", include_external_packages=True)
        return cls(
            functions=functions,
            senders=_importing(imports, functions, "twofold.kafka.sender", "twofold.kafka.lag"),
            gatherers=_importing(imports, functions, "twofold.write.group_commit"),
            artifacts=_artifacts(root / "skaffold.yaml"),
            calls={name: _calls(root / "functions" / name) for name in functions},
            roles=frozenset(ROLES),
            base_settings=yaml.safe_load((root / "knative/base/settings.yaml").read_text())["data"],
            version=tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"],
        )


def _importing(imports: grimp.ImportGraph, functions: frozenset[str], *modules: str) -> frozenset[str]:
    return frozenset(
        name
        for name in functions
        if any(imports.find_shortest_chain(f"functions.{name}.main", module) for module in modules)
    )


_CALL = re.compile(r"\.(list|read|create|replace|patch|delete)_(?:namespaced_)?([a-z]+)(?:_for_all_namespaces)?\(")
_VERBS = {"read": "get", "replace": "update"}


def _calls(folder: Path) -> frozenset[tuple[str, str, str]]:
    """Find the calls by method name: kubernetes.client names its methods after verb and kind.

    The functions use CoreV1Api only. The name of its API group is empty.
    """
    texts = [text for text in map(Path.read_text, folder.glob("*.py")) if "from kubernetes.client import" in text]
    return frozenset(("", f"{kind}s", _VERBS.get(verb, verb)) for text in texts for verb, kind in _CALL.findall(text))


def _artifacts(file: Path) -> dict[str, str]:
    build = yaml.safe_load(file.read_text())["build"]
    return {artifact["image"]: artifact["docker"]["buildArgs"]["FUNCTION"] for artifact in build["artifacts"]}
