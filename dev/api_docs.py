"""docs/api.md, made of the operations of each function: `python -m dev api-docs` writes it, and a test compares."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dev.paths import ROOT
from functions.admin.operations import OPERATIONS as ADMIN
from functions.audit.operations import OPERATIONS as AUDIT
from functions.publish.operations import OPERATIONS as PUBLISH
from functions.query.operations import OPERATIONS as QUERY
from twofold.web.api import Example, OperationDescription
from twofold.web.openapi import describe

FILE = ROOT / "docs" / "api.md"

APIS: Mapping[str, Sequence[OperationDescription]] = {
    "publish": PUBLISH,
    "query": QUERY,
    "audit": AUDIT,
    "admin": ADMIN,
}
"""What people call, by function, in the order in which the examples work."""

EVENT_ID = "0198a5b0-3a1c-7d52-9a52-0d3f6a1f2b11"

_BEGIN = f"""# API

*Written by `python -m dev api-docs` from the models that the functions work with. Each function answers its OpenAPI 3.1
description at `/openapi.json`, to everybody.*

Every request carries a bearer token; [README.md](../README.md#publish) has the rights. Errors are RFC 9457
`application/problem+json`: `errors` names each thing that is wrong, and where. Every operation can answer 400
(something about the request is wrong), 401 (no token that is good), 403 (not allowed) and 503 (not now: try again);
others are listed. A parameter that an operation doesn't know is a 400 that names it.

`make dev` prints the addresses and a token; the examples use them in this order:

```sh
{{variables}}
TOKEN=eyJ...
EVENT_ID={EVENT_ID}
```
"""


def text() -> str:
    """The whole file."""
    variables = "\n".join(f"{name.upper()}=http://127.0.0.1:..." for name in APIS)
    return _BEGIN.format(variables=variables) + "".join(_of_function(name, APIS[name]) for name in APIS)


def commands(function: str) -> list[str]:
    """The examples of a function, as they stand in the file."""
    return [_curl(function, operation, example) for operation in APIS[function] for example in operation.examples]


def _of_function(name: str, operations: Sequence[OperationDescription]) -> str:
    description = describe(name, operations)
    return f"\n## {name}\n" + "".join(_of_operation(name, operation, description) for operation in operations)


def _of_operation(function: str, operation: OperationDescription, description: Mapping[str, Any]) -> str:
    said = description["paths"][operation.path][operation.method.lower()]
    parts = [f"\n### {operation.method} {operation.path}\n\n{said['summary']}"]
    if "description" in said:
        parts[0] += f" {said['description']}"
    rows = [_row(each) for each in said["parameters"]]
    if rows:
        parts.append("\n".join(["| parameter | | |", "|---|---|---|", *rows]))
    bodies = [f"`{media}`: {_shape(body, description)}" for media, body in _contents(said.get("requestBody", {}))]
    parts += [f"Takes {'; '.join(bodies)}."] if bodies else []
    parts.append(f"Answers {'; '.join(_answers(said['responses'], description))}.")
    return "\n\n".join([*parts, _examples(function, operation)]) + "\n"


def _row(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    kind = _kind(schema)
    if schema.get("default") is not None:
        kind += f", `{schema['default']}` if not given"
    place = "" if parameter["in"] == "query" else f" ({parameter['in']})"
    return f"| `{parameter['name']}`{place} | {kind} | {parameter.get('description', '')} |"


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"{_kind(schema['items'])}, up to {schema['maxItems']} times"
    if schema.get("type") == "integer":
        return f"{schema.get('minimum', '')} to {schema.get('maximum', '')}"
    return {"date-time": "time", "uuid": "UUID"}.get(schema.get("format", ""), "text")


def _contents(part: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for media, content in part.get("content", {}).items():
        yield media, content["schema"]


def _answers(responses: Mapping[str, Any], description: Mapping[str, Any]) -> Iterator[str]:
    for status, response in responses.items():
        for media, schema in _contents(response):
            if media == "application/problem+json":
                if status not in ("400", "401", "403", "503"):
                    yield f"{status} ({response['description'].rstrip('.').lower()})"
            elif "$ref" in schema:
                yield f"{status} with {_shape(schema, description)}"
            else:
                yield f"{status} with `{media}`"


def _shape(schema: Mapping[str, Any], description: Mapping[str, Any], depth: int = 0) -> str:
    """The names of an object's members, and those of the objects in it, once deep."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _shape(description["components"]["schemas"][name], description, depth)
    if "anyOf" in schema:
        shapes = [_shape(each, description, depth) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(shape for shape in shapes if shape)
    if schema.get("type") == "array":
        return f"[{_shape(schema['items'], description, depth)}]"
    if "properties" not in schema:
        return "a JSON object" if schema.get("type") == "object" and depth == 0 else ""
    if depth > 1:
        return "{...}"
    members = ((name, _shape(member, description, depth + 1)) for name, member in schema["properties"].items())
    return "{" + ", ".join(f"{name}: {shape}" if shape else name for name, shape in members) + "}"


def _examples(function: str, operation: OperationDescription) -> str:
    lines = []
    for example in operation.examples:
        lines += [f"# {example.what}"] if example.what else []
        lines.append(_curl(function, operation, example))
    return "\n".join(["```sh", *lines, "```"])


def _curl(function: str, operation: OperationDescription, example: Example) -> str:
    """It ends with a status other than 0 for an answer that is a refusal."""
    method = "" if operation.method == "GET" or "-d " in example.options else f" -X {operation.method}"
    options = re.sub(r" (?=-[Hd] )", " \\\n  ", f" {example.options}") if example.options else ""
    return (
        f'curl -sS --fail-with-body{method} "${function.upper()}{example.path}" '
        f'-H "Authorization: Bearer $TOKEN"{options}'
    )
