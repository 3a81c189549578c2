"""The HTTP edge of every function: its service, health, errors, and its life in one worker process.

functions-framework imports the module of a function before gunicorn forks, and has no hook for the start of a worker.
So the connections are opened with the first request.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Generic, TypeVar

import functions_framework.aio
from pydantic_settings import BaseSettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from twofold.errors import TwofoldError, Unavailable, code_places
from twofold.observability.context import REQUEST
from twofold.observability.metrics import REQUEST_TIME
from twofold.observability.otel_settings import OtelSettings
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import BodySettings
from twofold.web.bodies import BUDGET, HELD, BodyBudget, JsonResponse
from twofold.web.problems import http_problem_response, problem_response
from twofold.web.readiness import Readiness
from twofold.web.shutdown import Shutdown, Step

logger = logging.getLogger(__name__)

Service = TypeVar("Service")
OpenService = Callable[[Telemetry], AbstractAsyncContextManager[Service]]
Handle = Callable[[Service, Request], Awaitable[Response]]
Finish = Callable[[Service], Awaitable[None]]
Target = Callable[[Request], Awaitable[Response]]

QUIET_S = 1.0
"""Seconds without a request after which a draining process stops."""
MAX_DRAIN_S = 5.0
"""The longest drain: a part of the 30 s that Kubernetes and gunicorn give."""
_MAX_PATH_CHARS = 200
"""The most characters of a path in a log line."""
HEALTH_PATHS = ("/healthz", "/livez")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")


def serve(
    name: str,
    open_service: OpenService[Service],
    handle: Handle[Service],
    *,
    settings: BaseSettings | None = None,
    finish: Finish[Service] | None = None,
    topic: str = "",
) -> Target:
    """Return the target of functions-framework for the function `name`.

    `open_service` opens the connections of one worker process, and `handle` answers a request with them. With
    `settings` for MongoDB, `GET /healthz` answers 200 after the first access. `finish` runs at shutdown, when no more
    requests come. `topic` is the Kafka topic in the function's spans.
    """
    function = Function(name, open_service, handle, settings=settings, finish=finish, topic=topic)

    async def target(request: Request) -> Response:
        return await function(request)

    target.__name__ = name
    functions_framework.aio.http(target)
    return target


class Function(Generic[Service]):
    """A function in one worker process.

    The settings of telemetry are read at once, so a wrong value ends the start with `pydantic.ValidationError`.

    From the first request on, the server calls the function directly. Starlette and the framework would add routing,
    execution ids and nested exception handlers, which take half of an empty function's time.
    """

    def __init__(
        self,
        name: str,
        open_service: OpenService[Service],
        handle: Handle[Service],
        *,
        settings: BaseSettings | None = None,
        finish: Finish[Service] | None = None,
        topic: str = "",
    ) -> None:
        self._name = name
        self._readiness = Readiness(name, settings)
        self._topic = topic
        self._otel = OtelSettings()
        self._bodies = BodyBudget(BodySettings())
        self._open_service = open_service
        self._handle = handle
        self._finish = finish
        self._service: Service | None = None
        self._framework: ASGIApp | None = None
        self._opening = asyncio.Lock()
        self._resources = AsyncExitStack()
        self._before_stop: list[Step] = [self._drain]
        self._shutdown: Shutdown | None = None
        self._telemetry = SILENT
        self._observed = logger.isEnabledFor(logging.DEBUG)
        self._last_request = 0.0
        self._draining = False

    async def __call__(self, request: Request) -> Response:
        """Answer `request`. An unexpected error gives 503, because ApiServerSource never retries a 500."""
        REQUEST.set(request.scope)
        if request.scope["path"] in HEALTH_PATHS and request.method in ("GET", "HEAD"):
            return await self._health(request)
        self._last_request = time.monotonic()
        request.scope[BUDGET] = self._bodies
        try:
            if self._observed or self._service is None:
                response = await self._observe(request)
            else:
                response = await self._answer(request)
        finally:
            if held := request.scope.get(HELD):
                self._bodies.release(held)
        if self._draining:
            response.headers["connection"] = "close"
        return response

    async def _health(self, request: Request) -> Response:
        """Answer a probe: `/livez` asks only this process, `/healthz` asks for readiness and opens the connections."""
        if request.scope["path"] == "/healthz":
            if not await self._readiness.is_ready():
                return problem_response(Unavailable("not ready: the function's log has the cause"))
            try:
                await self._open(request.app)
            except Exception:
                logger.exception("not ready: the function's connections were not opened")
                return problem_response(Unavailable("not ready: the function's log has the cause"))
        return JsonResponse({"status": "ok"})

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handle(self._service or await self._open(request.app), request)
        except TwofoldError as error:
            if isinstance(error, Unavailable):
                path = request.scope["path"][:_MAX_PATH_CHARS]
                logger.warning("503 for %s: %s", path, error.detail, exc_info=error.__cause__)
            return problem_response(error)
        except HTTPException as error:
            return http_problem_response(error)
        except Exception as error:  # noqa: BLE001 - its message is not logged: it can hold personal data
            places = code_places(error)
            path = request.scope["path"][:_MAX_PATH_CHARS]
            logger.error("unexpected %s in %s %s:\n%s", type(error).__name__, request.method, path, places)  # noqa: TRY400
            return problem_response(Unavailable("unexpected error; the function's log says more"))

    async def _observe(self, request: Request) -> Response:
        """Answer, record the duration, and log the request at debug."""
        start = time.perf_counter()
        status = 500
        try:
            response = await self._answer(request)
            status = response.status_code
        finally:
            seconds = time.perf_counter() - start
            about: dict[str, str | int] = {
                "http.request.method": request.method if request.method in _METHODS else "_OTHER",
                "http.response.status_code": status,
                "url.scheme": "http",
            }
            self._telemetry.record(REQUEST_TIME, seconds, about)
            logger.debug("request", extra=about | {"url.path": request.scope["path"], "seconds": round(seconds, 6)})
        return response

    async def _open(self, app: Starlette) -> Service:
        async with self._opening:
            if self._service is None:
                if self._shutdown is None:  # before the service: a service that never opens leaves telemetry too
                    self._telemetry = self._otel.open_telemetry(self._name, self._topic)
                    is_silent = self._telemetry is SILENT
                    self._observed = self._observed or not is_silent
                    self._shutdown = Shutdown(self._before_stop, None if is_silent else self._telemetry.close)
                self._readiness.start()
                service = await self._resources.enter_async_context(self._open_service(self._telemetry))
                if self._finish is not None:
                    self._before_stop.append(partial(self._finish, service))
                _collect_garbage_seldom()
                self._framework, app.middleware_stack = app.middleware_stack, self._serve
                self._service = service
            return self._service

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve HTTP as an ASGI application; the framework still serves every other protocol."""
        if scope["type"] == "http":
            response = await self(Request(scope, receive, send))
            await response(scope, receive, send)
        elif self._framework is not None:
            await self._framework(scope, receive, send)

    async def _drain(self) -> None:
        """Answer requests, and close each connection after its answer, until no request comes for a second.

        uvicorn closes idle connections at once. A request that is on its way on such a connection would get no answer.
        """
        self._draining = True
        until = time.monotonic() + MAX_DRAIN_S
        while time.monotonic() < min(until, self._last_request + QUIET_S):  # noqa: ASYNC110 - no event says "quiet"
            await asyncio.sleep(0.05)


def _collect_garbage_seldom() -> None:
    """Exclude the objects of the start from garbage collection, and collect less often than Python's default.

    A request leaves few reference cycles. With the defaults, `store` spends a sixth of its time in the collector
    (docs/performance.md). No collection comes first: a collection takes a seventh of the start, and finds a few hundred
    objects.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
