"""The manifests' Knative objects match the schemas of Knative's released definitions."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dev.manifests.rendering import OVERLAYS, Object, Rendered, called
from tests.kubernetes import knative
from tests.manifests.breaking import Overlays, container, delivery, source

pytestmark = [pytest.mark.dev, pytest.mark.go]

Schemas = Mapping[tuple[str, str], Any]


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    """Return the schemas by `apiVersion` and kind."""
    definitions = [definition["spec"] for definition in knative.definitions()]
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): closed(version["schema"]["openAPIV3Schema"])
        for spec in definitions
        for version in spec["versions"]
    }


def closed(schema: Any) -> Any:
    """Return a JSON Schema that refuses unknown members: the server would drop them silently."""
    if isinstance(schema, list):
        return [closed(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(member) for name, member in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    open_to_others = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & made.keys()
    if made.get("type") == "object" and "properties" in made and not open_to_others:
        made["additionalProperties"] = False
    return made


def complaints(rendered: Rendered, schemas: Schemas) -> Iterator[str]:
    for thing in rendered.objects:
        if ".knative.dev/" in thing["apiVersion"]:
            own: Object = {name: part for name, part in thing.items() if name in ("spec", "status")}
            schema = schemas[thing["apiVersion"], thing["kind"]]
            known = {name: part for name, part in schema["properties"].items() if name in ("spec", "status")}
            for error in Draft202012Validator({"properties": known, "additionalProperties": False}).iter_errors(own):
                yield f"{called(thing)}: {error.json_path}: {error.message}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str, overlays: Overlays, schemas: Schemas) -> None:
    kinds = {thing["kind"] for thing in overlays[overlay].objects if ".knative.dev/" in thing["apiVersion"]}
    assert {"Service", "KafkaSource", "PingSource"} <= kinds
    assert list(complaints(overlays[overlay], schemas)) == []


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (delivery, "retries", 3),
        (delivery, "retry", "450"),
        (source, "ordering", 1),
        (source, "initialOffsets", "earliest"),
        (container, "securtyContext", {}),
        (container, "envFrom", {}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_invalid_field_is_a_complaint(
    part: Any, name: str, value: object, overlays: Overlays, schemas: Schemas
) -> None:
    rendered = deepcopy(overlays["production"])
    part(rendered)[name] = value
    found = list(complaints(rendered, schemas))
    assert any(name in line for line in found), found
