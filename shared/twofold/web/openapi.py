"""The OpenAPI 3.1 description of a function's operations, made of the models that they work with. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from twofold.errors import Forbidden, Malformed, TooLarge, TwofoldError, Unauthorized, Unavailable, UnsupportedType
from twofold.web.api import OperationDescription

VERSION = "1"
"""Of all APIs: changes only when something is taken away."""


_ALWAYS: tuple[type[TwofoldError], ...] = (Malformed, Unauthorized, Forbidden, Unavailable)


_KEYWORDS = {"ge": "minimum", "le": "maximum"}
"""What pydantic leaves in its own words where a validator stands before the type."""


_SCHEMAS = "#/components/schemas/"


class WhatIsWrong(BaseModel):
    """One thing that is wrong."""

    where: str
    what: str


class ProblemDetails(BaseModel):
    """Why there is no answer (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    errors: list[WhatIsWrong] = Field(default_factory=list)


def describe(name: str, operations: Sequence[OperationDescription]) -> dict[str, Any]:
    """The description of the function `name`, as its `/openapi.json` answers it."""
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Twofold: {name}", "version": VERSION},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _schemas(operations: Iterable[OperationDescription]) -> Mapping[str, Any]:
    models: set[type[BaseModel]] = {ProblemDetails}
    for operation in operations:
        models |= {*operation.taken.values(), *operation.answers.values()}
        if operation.answer is not None:
            models.add(operation.answer)
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=f"{_SCHEMAS}{{model}}"
    )
    found: Mapping[str, Any] = definitions["$defs"]
    return found


def _operation(operation: OperationDescription) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_parameters(operation), *_headers(operation)],
        "responses": _responses(operation),
    }
    description = " ".join(filter(None, [operation.details, _right(operation)]))
    if description:
        described["description"] = description
    if operation.taken:
        content = {media: {"schema": _reference(model)} for media, model in operation.taken.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _right(operation: OperationDescription) -> str:
    if operation.permission is not None:
        return f"Needs the right `{operation.permission}`."
    return "Without the right `events:read:all`: one's own events alone." if operation.of_user else ""


def _parameters(operation: OperationDescription) -> list[dict[str, Any]]:
    schema = operation.parameters.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    return [
        _parameter(name, field, name in required, "path" if name in operation.path_names else "query")
        for name, field in schema.get("properties", {}).items()
    ]


def _parameter(name: str, field: Mapping[str, Any], required: bool, place: str) -> dict[str, Any]:
    field = {_KEYWORDS.get(key, key): value for key, value in field.items() if key != "title"}
    alternatives = [each for each in field.pop("anyOf", []) if each != {"type": "null"}]
    if len(alternatives) == 1:
        field |= alternatives[0]
    elif alternatives:
        field["anyOf"] = alternatives
    if field.get("default", ...) in (None, []):
        del field["default"]
    described = {"name": name, "in": place, "required": required or place == "path"}
    if "description" in field:
        described["description"] = field.pop("description")
    return described | {"schema": field}


def _headers(operation: OperationDescription) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": what, "schema": {"type": "string"}}
        for name, what in operation.headers.items()
    ]


def _responses(operation: OperationDescription) -> dict[str, Any]:
    content: dict[str, Any] = (
        _json(operation.answer)
        if operation.answer is not None
        else {media: {"schema": {} if "json" in media else {"type": "string"}} for media in operation.media_types}
    )
    responses: dict[str, Any] = {str(operation.status): {"description": "What was asked for.", "content": content}}
    for status, answer in operation.answers.items():
        responses[str(status)] = {"description": _first_line(answer), "content": _json(answer)}
    refusals = {*_ALWAYS, *operation.refusals, *({UnsupportedType, TooLarge} if operation.taken else ())}
    for refusal in sorted(refusals, key=lambda each: each.status):
        problem = {"application/problem+json": {"schema": _reference(ProblemDetails)}}
        responses[str(refusal.status)] = {"description": _first_line(refusal), "content": problem}
    return responses


def _first_line(described: type) -> str:
    return re.sub(r"\s+", " ", (described.__doc__ or "").strip()).partition(". ")[0]


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(model)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"{_SCHEMAS}{model.__name__}"}
