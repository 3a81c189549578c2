"""An API of several operations. A function declares each operation once: route, checks, answer and description.

A request goes through these steps: find the operation, identify the caller, check the permission, read the parameters
and the body into the operation's models, call the operation.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from twofold.errors import Malformed, NotFound, Problem, TwofoldError, UnsupportedType
from twofold.query.parameters import parse_query
from twofold.web.auth import Authenticator
from twofold.web.bodies import JsonResponse, read_body
from twofold.web.permissions import Permission, Principal

Service = TypeVar("Service")

MAX_BODY_BYTES = 64 * 1024
"""The largest body of an operation. The bodies of the operations are far smaller."""


class NoParameters(BaseModel):
    """No parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Call(Generic[Service]):
    """A call of an operation: the caller, and the parameters and the body in the operation's models."""

    service: Service
    caller: Principal
    parameters: Any
    body: Any
    request: Request


class Example(NamedTuple):
    """An example of a request with curl."""

    path: str
    """The path with its query. `$NAME` is a variable of docs/api.md."""
    options: str = ""
    """Options of curl besides the token's header."""
    what: str = ""
    """The subject of the example, if an operation has several examples."""


@dataclass(frozen=True, kw_only=True)
class OperationDescription:
    """The description of an operation, for OpenAPI and docs/api.md."""

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    """The path with the names of parameters in braces: `/events/{event_id}`."""
    summary: str
    """A sentence."""
    details: str = ""
    """More sentences for human readers."""
    permission: Permission | None = None
    """The permission that the caller needs besides a token."""
    restricts_user: bool = False
    """True: for a caller without `events:read:all`, the parameter `user` is always the caller."""
    parameters: type[BaseModel] = NoParameters
    """The parameters in the path and in the query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The request headers that the operation reads, with their descriptions."""
    body: type[BaseModel] | None = None
    """The JSON body."""
    bodies: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    """The bodies by their media types, if JSON is not the only media type."""
    status: int = 200
    answer: type[BaseModel] | None = None
    """The model of a JSON answer. Without a model, the answer has a type of `media_types`."""
    media_types: tuple[str, ...] = ("application/json",)
    answers: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """More answers, by status."""
    refusals: tuple[type[TwofoldError], ...] = ()
    """The errors of this operation besides the errors of every operation."""
    examples: tuple[Example, ...] = ()

    @property
    def path_names(self) -> tuple[str, ...]:
        """The names of the parameters in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def request_bodies(self) -> Mapping[str, type[BaseModel]]:
        """The models of the request's body, by their media types."""
        return self.bodies or ({"application/json": self.body} if self.body else {})


@dataclass(frozen=True, kw_only=True)
class Operation(OperationDescription, Generic[Service]):
    """An operation with its implementation."""

    handle: Callable[[Call[Service]], Awaitable[BaseModel | Response]]

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the parameters in `path`, or None if the path belongs to another operation."""
        found = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path), path)
        return found.groupdict() if found else None


class Api(Generic[Service]):
    """The operations of one function. `/openapi.json` answers their description, to every caller.

    The first request for the description calls `describe`, because a description takes 10 ms.
    """

    def __init__(
        self,
        operations: Sequence[Operation[Service]],
        callers: Authenticator,
        describe: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._operations = tuple(operations)
        self._callers = callers
        self._description = cache(lambda: JsonResponse(dict(describe())))

    async def handle(self, service: Service, request: Request) -> Response:
        """Answer `request`. Raises `TwofoldError`, and `HTTPException` 405 for a method that the path does not have."""
        path = request.scope["path"]
        if path == "/openapi.json" and request.method == "GET":
            return self._description()
        operation, in_path = self._operation(request.method, path)
        caller = await self._callers.principal(request.headers.raw)
        if operation.permission is not None:
            caller.require(operation.permission)
        user = caller.visible_user if operation.restricts_user else None
        parameters = parse_query(request.scope["query_string"], operation.parameters, in_path, user)
        body = await _body(request, operation.body) if operation.body else None
        answer = await operation.handle(Call(service, caller, parameters, body, request))
        if isinstance(answer, Response):
            return answer
        return Response(answer.model_dump_json(), status_code=operation.status, media_type="application/json")

    def _operation(self, method: str, path: str) -> tuple[Operation[Service], Mapping[str, str]]:
        methods = set()
        for operation in self._operations:
            if (in_path := operation.match(path)) is not None:
                if operation.method == method:
                    return operation, in_path
                methods.add(operation.method)
        if path == "/openapi.json":
            methods.add("GET")
        if not methods:
            raise NotFound("this function has no operation with this path: see /openapi.json", "path")
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})


async def _body(request: Request, model: type[BaseModel]) -> BaseModel:
    """Return the JSON body as a `model`. Raises `Malformed`, `UnsupportedType` or `TooLarge`."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedType("the body must be application/json", "content-type")
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = tuple(
            Problem(".".join(map(str, wrong["loc"])) or "body", wrong["msg"])
            for wrong in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise Malformed("; ".join(f"{where}: {what}" for where, what in problems), problems=problems) from None
