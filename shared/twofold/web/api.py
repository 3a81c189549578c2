"""An API of several operations: each is declared once, and found, checked, answered and described by that.

Whatever an operation asks for is read strictly, by models alone, after it is known who asks.
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
"""More than any operation's body needs."""


class NoParameters(BaseModel):
    """No parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Call(Generic[Service]):
    """One call of an operation: by whom, with which parameters and which body, each of the operation's own model."""

    service: Service
    caller: Principal
    parameters: Any
    body: Any
    request: Request


class Example(NamedTuple):
    """How to ask, with curl."""

    path: str
    """With its query; `$NAME` is a variable of docs/api.md."""
    options: str = ""
    """More options of curl's, besides the token's."""
    what: str = ""
    """What this one shows, where there are several."""


@dataclass(frozen=True, kw_only=True)
class OperationDescription:
    """All that OpenAPI and docs/api.md say of one thing that can be asked for."""

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    """With the names of parameters in braces: `/events/{event_id}`."""
    summary: str
    """One sentence."""
    details: str = ""
    """What else there is to know, for people."""
    permission: Permission | None = None
    """What the caller needs besides a token."""
    of_user: bool = False
    """Whether who may not read everybody's events gets only their own: the parameter `user` is then theirs."""
    parameters: type[BaseModel] = NoParameters
    """Those of the path and those of the query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that it reads, and what each is for."""
    body: type[BaseModel] | None = None
    bodies: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    """Bodies by their media types, where there are others than JSON."""
    status: int = 200
    answer: type[BaseModel] | None = None
    """The JSON that it answers; None: it answers `media_types`."""
    media_types: tuple[str, ...] = ("application/json",)
    answers: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """What else it answers, by status."""
    refusals: tuple[type[TwofoldError], ...] = ()
    """What it refuses with, besides what every operation does."""
    examples: tuple[Example, ...] = ()

    @property
    def path_names(self) -> tuple[str, ...]:
        """The parameters that stand in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def taken(self) -> Mapping[str, type[BaseModel]]:
        """The bodies that it takes, by their media types."""
        return self.bodies or ({"application/json": self.body} if self.body else {})


@dataclass(frozen=True, kw_only=True)
class Operation(OperationDescription, Generic[Service]):
    """One thing that can be asked for, and what answers it."""

    handle: Callable[[Call[Service]], Awaitable[BaseModel | Response]]

    def match(self, path: str) -> Mapping[str, str] | None:
        """The path's parameters, if it is this operation's."""
        found = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path), path)
        return found.groupdict() if found else None


class Api(Generic[Service]):
    """The operations of one function. `/openapi.json` answers what `describe` makes, their OpenAPI, to all.

    It is made when it is first asked for: it would be 10 ms of every start.
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
        """Answer `request`. Raises `TwofoldError`, or 405 for a method that its path doesn't take."""
        path = request.scope["path"]
        if path == "/openapi.json" and request.method == "GET":
            return self._description()
        operation, in_path = self._operation(request.method, path)
        caller = await self._callers.principal(request.headers.raw)
        if operation.permission is not None:
            caller.require(operation.permission)
        user = caller.visible_user if operation.of_user else None
        asked = parse_query(request.scope["query_string"], operation.parameters, in_path, user)
        body = await _body(request, operation.body) if operation.body else None
        answer = await operation.handle(Call(service, caller, asked, body, request))
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
            raise NotFound("there is nothing at this path", "path")
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})


async def _body(request: Request, model: type[BaseModel]) -> BaseModel:
    """The JSON body as a `model`. Raises `Malformed`, `UnsupportedType` or `TooLarge`."""
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
