"""A function in its worker process, without a server: the end of the process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import FrameType

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from twofold.errors import Unavailable
from twofold.observability.telemetry import Telemetry
from twofold.web import function as functions
from twofold.web.function import Function

pytestmark = pytest.mark.guarantee("G1")


@asynccontextmanager
async def opened(_: Telemetry) -> AsyncIterator[str]:
    yield "service"


@asynccontextmanager
async def unavailable(_: Telemetry) -> AsyncIterator[str]:
    raise Unavailable("MongoDB is unavailable")
    yield


async def answer(_: str, __: Request) -> Response:
    return Response()


def a_request() -> Request:
    return Request({"type": "http", "method": "POST", "path": "/", "headers": [], "app": Starlette()})


@pytest.fixture
def steps() -> Iterator[list[str]]:
    """Return the steps of the shutdown. The server's handler of SIGTERM adds `stop`."""
    taken: list[str] = []

    def stop(_: int, __: FrameType | None) -> None:
        taken.append("stop")

    before = signal.signal(signal.SIGTERM, stop)
    yield taken
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Return the functions that run at the end of the process."""
    registered: list[Callable[[], None]] = []
    monkeypatch.setattr("twofold.web.shutdown.atexit.register", registered.append)
    return registered


@pytest.mark.usefixtures("steps")
async def test_telemetry_is_closed_at_exit_though_the_service_never_opened(
    at_exit: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    monkeypatch.setattr("twofold.observability.otel.open_exporting", lambda *_, **__: telemetry)
    function = Function("store", unavailable, answer)

    statuses = [(await function(a_request())).status_code for _ in range(2)]

    assert statuses == [503, 503]
    assert at_exit == [telemetry.close]


async def test_sigterm_drains_then_finishes_then_stops_the_server(
    steps: list[str], at_exit: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the function drains, it still answers."""
    monkeypatch.setattr(functions, "QUIET_S", 0.2)
    monkeypatch.setattr(functions, "_collect_garbage_seldom", lambda: None)

    async def finish(service: str) -> None:
        steps.append(f"finish {service}")

    function = Function("store", opened, answer, finish=finish)
    assert (await function(a_request())).status_code == 200

    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)
    late = await function(a_request())
    taken = list(steps)
    async with asyncio.timeout(5):
        while "stop" not in steps:  # noqa: ASYNC110 - the shutdown gives no notice
            await asyncio.sleep(0.02)

    assert (late.status_code, late.headers["connection"], taken) == (200, "close", [])
    assert steps == ["finish service", "stop"]
    assert at_exit == []
