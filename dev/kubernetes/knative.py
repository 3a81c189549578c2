"""Knative's released manifests, as its operator carries them: definitions, accounts and roles."""

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from dev.kubernetes.api import Api, Manifest, Refused
from dev.kubernetes.golang import alone, archive, budget, module_cache
from dev.processes import StartFailed, wait_until

MODULE = "operator"
OPERATOR = "knative.dev/operator"
RELEASE = "1.23"
"""Knative's release; the Kafka source's has the same number."""

_KODATA = Path("cmd/operator/kodata")
_FILES = {
    "serving-crds": f"knative-serving/{RELEASE}.0/1-serving-crds.yaml",
    "serving": f"knative-serving/{RELEASE}.0/2-serving-core.yaml",
    "eventing-crds": f"knative-eventing/{RELEASE}.0/1-eventing-crds.yaml",
    "eventing": f"knative-eventing/{RELEASE}.0/2-eventing-core.yaml",
    "kafka": f"eventing-source/{RELEASE}/kafka/eventing-kafka-controller.yaml",
}
"""The files that are used, by the names that they have in the cache."""

SERVED_WITHIN_S = 30.0


def manifests(deadline: float | None = None) -> Path:
    """The folder with the files, from the cache, or fetched now. Raises `golang.Unbuilt`."""
    target = module_cache(MODULE) / f"{RELEASE}-{len(_FILES)}"
    if not target.is_dir():
        until = time.monotonic() + budget() if deadline is None else deadline
        with alone(target, until):
            if not target.is_dir():
                _copy(archive(MODULE, OPERATOR, until) / _KODATA, target)
    return target


def _copy(source: Path, target: Path) -> None:
    unfinished = target.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, file in _FILES.items():
        shutil.copyfile(source / file, unfinished / f"{name}.yaml")
    unfinished.rename(target)


def objects(name: str) -> Iterator[Manifest]:
    """The objects of one of the files."""
    with (manifests() / f"{name}.yaml").open() as stream:
        for found in yaml.safe_load_all(stream):
            if found is not None:
                yield found


def definitions() -> list[Manifest]:
    """Every custom resource definition of Serving, Eventing and the Kafka source, each once."""
    found = [item for name in ("serving-crds", "eventing-crds", "kafka") for item in objects(name)]
    kinds = [item for item in found if item["kind"] == "CustomResourceDefinition"]
    return list({item["metadata"]["name"]: _without_webhook(item) for item in kinds}.values())


def _without_webhook(definition: Manifest) -> Manifest:
    """Knative converts between versions in a webhook, which is not here: the server itself renames the version alone.

    The versions of what we use have the same fields, but for some of `net.sasl` in a KafkaSource.
    """
    return definition | {"spec": definition["spec"] | {"conversion": {"strategy": "None"}}}


def install(api: Api) -> None:
    """Bring Knative's kinds into a cluster, and wait until it serves them. Raises `StartFailed` if one never is."""
    defined = definitions()
    api.apply_all(defined)
    for definition in defined:
        if not wait_until(partial(_is_served, api, definition), within=SERVED_WITHIN_S, every=0.05):
            raise StartFailed(f"the server does not serve {definition['metadata']['name']}")


def _is_served(api: Api, definition: Manifest) -> bool:
    """Whether objects of the kind can be listed, in each version that the definition serves."""
    spec = definition["spec"]
    versions = [version["name"] for version in spec["versions"] if version["served"]]
    return all(_can_list(api, f"/apis/{spec['group']}/{version}/{spec['names']['plural']}") for version in versions)


def _can_list(api: Api, path: str) -> bool:
    try:
        api.send("GET", path, query={"limit": "1"})
    except Refused:
        return False
    return True
