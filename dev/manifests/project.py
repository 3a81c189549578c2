"""What the manifests are compared with: the functions, what they import, artifacts, roles, settings."""

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
    """The tree, as far as it is deployed."""

    functions: frozenset[str]
    senders: frozenset[str]
    """The functions that import a Kafka client, however indirectly."""
    gatherers: frozenset[str]
    """Those that write what several requests bring at once."""
    artifacts: Mapping[str, str]
    """The function that each of skaffold.yaml's images holds."""
    calls: Mapping[str, frozenset[tuple[str, str, str]]]
    """What each function asks of Kubernetes' API, as (API group, resource, verb), by the methods that it calls."""
    roles: frozenset[str]
    """Those for which setup makes a database user."""
    base_settings: Mapping[str, str]
    """What knative/base says of the settings, before an overlay changes it."""
    version: str

    @classmethod
    def here(cls, root: Path = ROOT) -> Self:
        """This tree."""
        functions = frozenset(main.parent.name for main in root.glob("functions/*/main.py"))
        imports = grimp.build_graph("twofold", "functions", include_external_packages=True)
        return cls(
            functions=functions,
            senders=_importing(imports, functions, "confluent_kafka"),
            gatherers=_importing(imports, functions, "twofold.group_commit"),
            artifacts=_artifacts(root / "skaffold.yaml"),
            calls={name: _calls(root / "functions" / name) for name in functions},
            roles=frozenset(ROLES),
            base_settings=yaml.safe_load((root / "knative/base/settings.yaml").read_text())["data"],
            version=tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"],
        )


def _importing(imports: grimp.ImportGraph, functions: frozenset[str], module: str) -> frozenset[str]:
    return frozenset(name for name in functions if imports.find_shortest_chain(f"functions.{name}.main", module))


_CALL = re.compile(r"\.(list|read|create|replace|patch|delete)_(?:namespaced_)?([a-z]+)(?:_for_all_namespaces)?\(")
_VERBS = {"read": "get", "replace": "update"}


def _calls(folder: Path) -> frozenset[tuple[str, str, str]]:
    """The kubernetes client's methods are named after verb and kind; ours are CoreV1Api's, whose group has no name."""
    texts = [text for text in map(Path.read_text, folder.glob("*.py")) if "from kubernetes.client import" in text]
    return frozenset(("", f"{kind}s", _VERBS.get(verb, verb)) for text in texts for verb, kind in _CALL.findall(text))


def _artifacts(file: Path) -> dict[str, str]:
    build = yaml.safe_load(file.read_text())["build"]
    return {artifact["image"]: artifact["docker"]["buildArgs"]["FUNCTION"] for artifact in build["artifacts"]}
