"""The HTTP edge that all functions share: bodies within bounds, problem+json, health, one start and one end a process.

Errors follow RFC 9457 (`application/problem+json`) and hold no stack trace, query or secret.
"""

import asyncio
import atexit
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import FrameType
from typing import Generic, Self, TypeVar

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from twofold.errors import Malformed, TooLarge, TwofoldError, Unauthorized, Unavailable
from twofold.logs import REQUEST
from twofold.reporting import Reporting
from twofold.settings import Settings
from twofold.telemetry import REQUEST_TIME, SILENT, Telemetry

logger = logging.getLogger(__name__)

Service = TypeVar("Service")
Item = TypeVar("Item")
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
        self._reporting = Reporting()
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
            return Json({"status": "ok"})
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
            return problem(error)
        except HTTPException as error:
            return PlainTextResponse(error.detail, error.status_code, error.headers)
        except Exception:
            logger.exception("unexpected error in %s %s", request.method, request.url.path)
            return problem(Unavailable("unexpected error; the function's log says more"))

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
            _at_the_end(self._telemetry.close)

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


def before_sigterm(finish: Callable[[], Awaitable[None]]) -> None:
    """Run `finish` when SIGTERM comes, and only then let the server stop; it serves meanwhile.

    uvicorn ends the requests that are under way by itself, and then the process, without a hook behind them.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    finishing: list[asyncio.Task[None]] = []

    async def finish_then_stop(signum: int, frame: FrameType | None) -> None:
        try:
            await finish()
        finally:
            if callable(stop):
                stop(signum, frame)

    def start(signum: int, frame: FrameType | None) -> None:
        if not finishing:
            finishing.append(loop.create_task(finish_then_stop(signum, frame)))

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(start, signum, frame)

    signal.signal(signal.SIGTERM, on_sigterm)


def _at_the_end(finish: Callable[[], None]) -> None:
    """Run `finish` when the server has stopped serving, and before the process ends.

    When uvicorn has stopped, it raises the signal that stopped it once more, which would end the process there and
    then. So the signal is blocked from its first arrival on, and the process ends as others do.
    """
    stop = signal.getsignal(signal.SIGTERM)

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if callable(stop):
            stop(signum, frame)

    signal.signal(signal.SIGTERM, on_sigterm)
    atexit.register(finish)


class LiveResponse(Response, Generic[Item]):
    """An answer without a known end: each item as it comes. It ends when its source does, or its reader goes."""

    def __init__(self, items: AsyncIterator[Item], encode: Callable[[Item], bytes], media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._items = items
        self._encode = encode
        self._resources = AsyncExitStack()

    @classmethod
    async def of(
        cls,
        source: AbstractAsyncContextManager[AsyncIterator[Item]],
        encode: Callable[[Item], bytes],
        media_type: str,
    ) -> Self:
        """The answer of what `source` gives; whatever its opening raises is raised here, before anything is sent."""
        async with AsyncExitStack() as opening:
            items = await opening.enter_async_context(source)
            response = cls(items, encode, media_type)
            response._resources = opening.pop_all()
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end; then the source is closed, whoever ended it."""
        tasks = {asyncio.ensure_future(self._send(send)), asyncio.ensure_future(_left(receive))}
        try:
            async with self._resources:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    logger.warning("a live answer ended early", exc_info=error)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for item in self._items:
            await send({"type": "http.response.body", "body": self._encode(item), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    """Wait until the reader is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises `TooLarge` without reading more than that."""
    body = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Malformed("the connection ended before the body did")
        more = message.get("more_body", False)
        if not more and not body and len(message["body"]) <= max_bytes:  # as most are: in one piece
            return bytes(message["body"])
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise TooLarge(f"the body is over {max_bytes} bytes")
    return bytes(body)


def allow(request: Request, *methods: str, path: str = "/") -> None:
    """Raise 404 or 405 unless `request` is for `path` with one of `methods`."""
    if request.scope["path"] != path:  # `request.url` takes 3 us to make
        raise HTTPException(404)
    if request.method not in methods:
        raise HTTPException(405, headers={"Allow": ", ".join(methods)})


class Json(Response):
    """An answer in JSON: pydantic writes it in a tenth of the time of Starlette's own, and writes dates and ids too."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """`content` as JSON."""
        return to_json(content)


def problem(error: TwofoldError) -> Response:
    """The answer for `error`."""
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else None
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    return Json(
        problem_details(error), status_code=error.status, headers=headers, media_type="application/problem+json"
    )


def problem_details(error: TwofoldError) -> dict[str, object]:
    """The members of RFC 9457; `errors` names each thing that is wrong: `where` and `what`."""
    details: dict[str, object] = {
        "type": f"urn:twofold:problem:{error.title}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.problems:
        details["errors"] = [problem._asdict() for problem in error.problems]
    return details
