"""docs/api.md and the OpenAPI descriptions agree with the code."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from dev import api_docs
from dev.paths import ROOT
from twofold.web.api import OperationDescription
from twofold.web.openapi import describe

OPERATIONS = [(name, operation) for name, operations in api_docs.APIS.items() for operation in operations]
NAMES = [f"{name} {operation.name}" for name, operation in OPERATIONS]


@pytest.mark.dev
def test_docs_api_md_agrees_with_the_operations() -> None:
    """To write the file anew: `python -m dev api-docs`."""
    assert api_docs.FILE.read_text() == api_docs.text()


@pytest.mark.dev
def test_docs_api_md_has_every_function_with_operations() -> None:
    there = {path.parent.name for path in ROOT.glob("functions/*/operations.py")}
    assert there == set(api_docs.APIS)


@pytest.mark.dev
@pytest.mark.parametrize(("function", "operation"), OPERATIONS, ids=NAMES)
def test_every_operation_has_an_example(function: str, operation: OperationDescription) -> None:
    assert operation.examples


@pytest.mark.guarantee("R24")
@pytest.mark.parametrize("name", api_docs.APIS)
def test_every_reference_in_a_description_has_a_target(name: str) -> None:
    description = describe(name, api_docs.APIS[name])
    there = {f"#/components/schemas/{each}" for each in description["components"]["schemas"]}
    assert set(references(description)) <= there
    assert TypeAdapter(dict[str, Any]).validate_json(TypeAdapter(Any).dump_json(description)) == description


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for each in part.values() for found in references(each)]
    return [found for each in part for found in references(each)] if isinstance(part, list) else []


@pytest.mark.guarantee("R24")
@pytest.mark.parametrize(("function", "operation"), OPERATIONS, ids=NAMES)
def test_a_description_names_every_parameter_of_the_model(function: str, operation: OperationDescription) -> None:
    described = describe(function, [operation])["paths"][operation.path][operation.method.lower()]
    names = {field.alias or name for name, field in operation.parameters.model_fields.items()}
    assert {each["name"] for each in described["parameters"] if each["in"] != "header"} == names
