"""Knative's released manifests, from the archive of its operator: definitions, accounts and roles."""

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from dev.process.child import StartFailed, wait_until
from tests.kubernetes.api import Api, Manifest, Refused
from tests.kubernetes.golang import alone, archive, budget, module_cache

MODULE = "operator"
OPERATOR = "knative.dev/operator"
RELEASE = "1.23"
"""Knative's release. The Kafka source's release has the same number."""

_KODATA = Path("cmd/operator/kodata")
_FILES = {
    "serving-crds": f"knative-serving/{RELEASE}.0/1-serving-crds.yaml",
    "serving": f"knative-serving/{RELEASE}.0/2-serving-core.yaml",
    "eventing-crds": f"knative-eventing/{RELEASE}.0/1-eventing-crds.yaml",
    "eventing": f"knative-eventing/{RELEASE}.0/2-eventing-core.yaml",
    "kafka": f"eventing-source/{RELEASE}/kafka/eventing-kafka-controller.yaml",
}
"""The files that tests need, by their names in the cache."""

SERVED_WITHIN_S = 30.0


def manifests(deadline: float | None = None) -> Path:
    """Return the folder of the files in the cache. Fetches an absent folder. Raises `golang.Unbuilt`."""
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
    """Yield the objects of a file."""
    with (manifests() / f"{name}.yaml").open() as stream:
        yield from filter(None, yaml.safe_load_all(stream))


def identity(item: Manifest) -> tuple[str, str]:
    """Return the kind and the name of an object."""
    return item["kind"], item["metadata"]["name"]


def definitions() -> list[Manifest]:
    """Return the custom resource definitions of Serving, Eventing and the Kafka source, without repeats."""
    found = [item for name in ("serving-crds", "eventing-crds", "kafka") for item in objects(name)]
    kinds = [item for item in found if item["kind"] == "CustomResourceDefinition"]
    return list({item["metadata"]["name"]: _without_webhook(item) for item in kinds}.values())


def _without_webhook(definition: Manifest) -> Manifest:
    """Return the definition without Knative's conversion webhook, which is not built: the server renames versions.

    The versions of our kinds have the same fields. Only a KafkaSource's `net.sasl` differs in a few fields.
    """
    return definition | {"spec": definition["spec"] | {"conversion": {"strategy": "None"}}}


def install(api: Api) -> None:
    """Apply Knative's definitions and wait until the server serves them. Raises `StartFailed` after 30 s."""
    defined = definitions()
    api.apply_all(defined)
    for definition in defined:
        if not wait_until(partial(_is_served, api, definition), within=SERVED_WITHIN_S, every=0.05):
            raise StartFailed(f"the API server does not serve {definition['metadata']['name']}")


def _is_served(api: Api, definition: Manifest) -> bool:
    """Return True if the server lists objects of the kind in every served version."""
    spec = definition["spec"]
    try:
        for version in spec["versions"]:
            if version["served"]:
                path = f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
                api.send("GET", path, query={"limit": "1"})
    except Refused:
        return False
    return True
