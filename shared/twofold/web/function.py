"""The HTTP edge that all functions share: bodies within bounds, problem+json, health, one start and one end a process.

Errors follow RFC 9457 (`application/problem+json`) and hold no stack trace, query or secret.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from twofold.errors import TwofoldError, Unavailable
from twofold.observability.context import REQUEST
from twofold.observability.metrics import REQUEST_TIME
from twofold.observability.otel_settings import OtelSettings
from twofold.observability.telemetry import SILENT, Telemetry
from twofold.settings import Settings
from twofold.web.bodies import JsonResponse
from twofold.web.problems import problem_response
from twofold.web.shutdown import at_exit, before_sigterm

logger = logging.getLogger(__name__)


Service = TypeVar("Service")


Handle = Callable[[Service, Request], Awaitable[Response]]


class Function(Generic[Service]):
    """A function's life in one worker process: what it works with is opened with the first request, after the fork.

    functions-framework imports the module before it forks, and has no hook for the start. What the environment says
    of logs and of a collector is read at once, so that a wrong value ends the start. Raises `ValidationError`.

    From the first request on, the server calls the function directly: what Starlette and the framework put in between
    (routing, execution ids, nested handlers of exceptions) takes half of an empty function's time, for nothing.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        open_service: Callable[[Telemetry], AbstractAsyncContextManager[Service]],
        handle: Handle[Service],
    ) -> None:
        self._name = name
        self._topic = settings.kafka_topic
        self._reporting = OtelSettings()
        self._open_service = open_service
        self._handle = handle
        self._service: Service | None = None
        self._framework: ASGIApp | None = None
        self._opening = asyncio.Lock()
        self._resources = AsyncExitStack()
        self._telemetry = SILENT
        self._observed = logger.isEnabledFor(logging.DEBUG)
        self._last_request = 0.0
        self._leaving = False

    async def __call__(self, request: Request) -> Response:
        """Answer `request`, with 503 for whatever is unexpected: ApiServerSource takes a 500 for final."""
        REQUEST.set(request.scope)
        if request.method in ("GET", "HEAD") and request.scope["path"] == "/healthz":
            return JsonResponse({"status": "ok"})
        self._last_request = time.monotonic()
        if self._observed or self._service is None:
            response = await self._observe(request)
        else:
            response = await self._answer(request)
        if self._leaving:
            response.headers["connection"] = "close"
        return response

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handle(self._service or await self._open(request.app), request)
        except TwofoldError as error:
            if isinstance(error, Unavailable):
                logger.warning("503 for %s: %s", request.url.path, error.detail, exc_info=error.__cause__)
            return problem_response(error)
        except HTTPException as error:
            return PlainTextResponse(error.detail, error.status_code, error.headers)
        except Exception:
            logger.exception("unexpected error in %s %s", request.method, request.url.path)
            return problem_response(Unavailable("unexpected error; the function's log says more"))

    async def _observe(self, request: Request) -> Response:
        """Answer, and tell how that went: for those who asked to be told."""
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
                if self._telemetry is SILENT:
                    self._open_telemetry()
                self._service = await self._resources.enter_async_context(self._open_service(self._telemetry))
                before_sigterm(self._leave)
                _collect_garbage_seldom()
                self._framework, app.middleware_stack = app.middleware_stack, self._serve
            return self._service

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The function as an ASGI application, for HTTP; all else is still the framework's."""
        if scope["type"] == "http":
            response = await self(Request(scope, receive, send))
            await response(scope, receive, send)
        elif self._framework is not None:
            await self._framework(scope, receive, send)

    def _open_telemetry(self) -> None:
        self._telemetry = self._reporting.open(self._name, self._topic)
        if self._telemetry is not SILENT:
            self._observed = True
            at_exit(self._telemetry.close)

    async def _leave(self) -> None:
        """Go on answering, and close each connection behind its answer, until nobody has asked for a while.

        uvicorn closes at once the connections on which it knows of no request: one that is on its way on such a
        connection would get no answer.
        """
        self._leaving = True
        until = time.monotonic() + _MOST_LEAVING_S
        while time.monotonic() < min(until, self._last_request + _QUIET_S):  # noqa: ASYNC110 - quiet is no event
            await asyncio.sleep(0.05)


_QUIET_S = 1.0


_MOST_LEAVING_S = 5.0
"""Of the 30 s or more that Kubernetes and gunicorn give."""


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")


def _collect_garbage_seldom() -> None:
    """What is there now, stays: the collector need not look at it; and a request leaves no cycles worth a look each.

    With Python's defaults a sixth of `store`'s time is spent looking for garbage (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
