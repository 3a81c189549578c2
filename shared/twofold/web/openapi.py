"""The OpenAPI 3.1 description of a function, made from its operations and their models. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from twofold.errors import Forbidden, Malformed, TooLarge, TwofoldError, Unauthorized, Unavailable, UnsupportedType
from twofold.web.api import OperationDescription

VERSION = "1"
"""The version of every API. It changes only when an API loses a part."""

_ALWAYS: tuple[type[TwofoldError], ...] = (Malformed, Unauthorized, Forbidden, Unavailable)
"""The errors of every operation."""
_KEYWORDS = {"ge": "minimum", "le": "maximum"}
"""The OpenAPI words for pydantic's own words, which pydantic leaves where a validator stands before the type."""
_SCHEMAS = "#/components/schemas/"


class ProblemItem(BaseModel):
    """A problem of a request: its place, and a message."""

    where: str
    what: str


class ProblemDetails(BaseModel):
    """The reason of an error (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemItem] = Field(default_factory=list)


def describe(name: str, operations: Sequence[OperationDescription]) -> dict[str, Any]:
    """Return the description of the function `name`: the answer of its `/openapi.json`."""
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
        models |= {*operation.request_bodies.values(), *operation.answers.values()}
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
    description = " ".join(filter(None, [operation.details, _permission(operation)]))
    if description:
        described["description"] = description
    if operation.request_bodies:
        content = {media: {"schema": _reference(model)} for media, model in operation.request_bodies.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _permission(operation: OperationDescription) -> str:
    if operation.permission is not None:
        return f"Needs the permission `{operation.permission}`."
    if operation.restricts_user:
        return "A caller without the permission `events:read:all` gets only their own events."
    return ""


def _parameters(operation: OperationDescription) -> list[dict[str, Any]]:
    schema = operation.parameters.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    return [
        _parameter(name, field, name in required, "path" if name in operation.path_names else "query")
        for name, field in schema.get("properties", {}).items()
    ]


def _parameter(name: str, field: Mapping[str, Any], required: bool, location: str) -> dict[str, Any]:
    field = {_KEYWORDS.get(key, key): value for key, value in field.items() if key != "title"}
    alternatives = [schema for schema in field.pop("anyOf", []) if schema != {"type": "null"}]
    if len(alternatives) == 1:
        field |= alternatives[0]
    elif alternatives:
        field["anyOf"] = alternatives
    if field.get("default", ...) in (None, []):
        del field["default"]
    described = {"name": name, "in": location, "required": required or location == "path"}
    if "description" in field:
        described["description"] = field.pop("description")
    return described | {"schema": field}


def _headers(operation: OperationDescription) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}
        for name, description in operation.headers.items()
    ]


def _responses(operation: OperationDescription) -> dict[str, Any]:
    content: dict[str, Any] = (
        _json(operation.answer)
        if operation.answer is not None
        else {media: {"schema": {} if "json" in media else {"type": "string"}} for media in operation.media_types}
    )
    responses: dict[str, Any] = {str(operation.status): {"description": "Success.", "content": content}}
    for status, answer in operation.answers.items():
        responses[str(status)] = {"description": _first_sentence(answer), "content": _json(answer)}
    refusals = {*_ALWAYS, *operation.refusals, *({UnsupportedType, TooLarge} if operation.request_bodies else ())}
    for refusal in sorted(refusals, key=lambda error: error.status):
        problem = {"application/problem+json": {"schema": _reference(ProblemDetails)}}
        answer = responses.get(str(refusal.status), {"content": {}})  # an operation can have its own answer too
        responses[str(refusal.status)] = {
            "description": _first_sentence(refusal),
            "content": answer["content"] | problem,
        }
    return responses


def _first_sentence(described: type) -> str:
    return re.sub(r"\s+", " ", (described.__doc__ or "").strip()).partition(". ")[0]


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(model)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"{_SCHEMAS}{model.__name__}"}
