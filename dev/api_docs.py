"""Write docs/api.md from the functions' operations: `python -m dev api-docs`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dev.paths import ROOT
from functions.admin.operations import OPERATIONS as ADMIN
from functions.audit.operations import OPERATIONS as AUDIT
from functions.publish.operations import OPERATIONS as PUBLISH
from functions.query.operations import OPERATIONS as QUERY
from twofold.event.identity import event_id_of
from twofold.web.api import Example, OperationDescription
from twofold.web.openapi import describe

FILE = ROOT / "docs" / "api.md"

APIS: Mapping[str, Sequence[OperationDescription]] = {
    "publish": PUBLISH,
    "query": QUERY,
    "audit": AUDIT,
    "admin": ADMIN,
}
"""The operations by function. The examples work in this order."""

GIVEN_ID = "0198a5b0-3a1c-7d52-9a52-0d3f6a1f2b11"
EVENT_ID = str(event_id_of("/shop", GIVEN_ID))

_BEGIN = f"""# API

*`python -m dev api-docs` writes this file from the models of the functions. Each function answers its OpenAPI 3.1
description at `/openapi.json`, without a token.*

Every request carries a bearer token; [operations.md](operations.md#tokens) lists the permissions. Errors are RFC 9457
`application/problem+json`: `errors` names every error and its place. Every operation can answer 400 (an error in the
request), 401 (no valid token), 403 (not allowed) and 503 (unavailable: try again). The other answers are listed. A
parameter that an operation does not know is a 400 that names the parameter.

`make dev` prints the addresses and a token for these variables of the examples:

```sh
{{variables}}
TOKEN=eyJ...
EVENT_ID={EVENT_ID}
GIVEN_ID={GIVEN_ID}
```
"""


def text() -> str:
    """Return the text of docs/api.md."""
    variables = "\n".join(f"{name.upper()}=http://127.0.0.1:..." for name in APIS)
    return _BEGIN.format(variables=variables) + "".join(_of_function(name, APIS[name]) for name in APIS)


def commands(function: str) -> list[str]:
    """Return the curl commands of a function's examples, as docs/api.md shows them."""
    return [_curl(function, operation, example) for operation in APIS[function] for example in operation.examples]


def _of_function(name: str, operations: Sequence[OperationDescription]) -> str:
    description = describe(name, operations)
    return f"\n## {name}\n" + "".join(_of_operation(name, operation, description) for operation in operations)


def _of_operation(function: str, operation: OperationDescription, description: Mapping[str, Any]) -> str:
    found = description["paths"][operation.path][operation.method.lower()]
    text = " ".join([found["summary"], *([found["description"]] if "description" in found else [])])
    parts = [f"\n### {operation.method} {operation.path}\n\n{text}"]
    if rows := [_row(parameter) for parameter in found["parameters"]]:
        parts.append("\n".join(["| parameter | | |", "|---|---|---|", *rows]))
    if bodies := [f"`{media}`: {_shape(body, description)}" for media, body in _contents(found.get("requestBody", {}))]:
        parts.append(f"Takes {'; '.join(bodies)}.")
    parts.append(f"Answers {'; '.join(_answers(found['responses'], description))}.")
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


def _contents(part: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(media, content["schema"]) for media, content in part.get("content", {}).items()]


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
    """Return the names of an object's members, and of the members of its objects."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _shape(description["components"]["schemas"][name], description, depth)
    if "anyOf" in schema:
        shapes = [_shape(part, description, depth) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(shape for shape in shapes if shape)
    if schema.get("type") == "array":
        return f"[{_shape(schema['items'], description, depth)}]"
    if "properties" not in schema:
        return "a JSON value" if "type" not in schema and depth == 0 else ""
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
    """Return a curl command. Its exit status is 0 only for a 2xx answer."""
    method = "" if operation.method == "GET" or "-d " in example.options else f" -X {operation.method}"
    options = re.sub(r" (?=-[Hd] )", " \\\n  ", f" {example.options}") if example.options else ""
    return (
        f'curl -sS --fail-with-body{method} "${function.upper()}{example.path}" '
        f'-H "Authorization: Bearer $TOKEN"{options}'
    )
