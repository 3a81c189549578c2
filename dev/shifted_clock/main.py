"""`publish` on a machine whose clock is `CLOCK_SHIFT_S` seconds ahead: its own times, and those of its Kafka records.

The function is the real one; the clock is passed in where it takes one. Never a setting of the product.
"""

import importlib.util
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from twofold.observability.telemetry import Telemetry

SHIFT_S = float(os.environ["CLOCK_SHIFT_S"])
_MAIN = Path(__file__).resolve().parents[2] / "functions" / "publish" / "main.py"

_time = time.time
vars(time)["time"] = lambda: _time() + SHIFT_S


def _real_publish() -> Any:
    """The module `functions/publish/main.py`, whose folder is this process's own."""
    name, folder = "publish_main", str(_MAIN.parent)
    spec = importlib.util.spec_from_file_location(name, _MAIN, submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"{_MAIN} is not there")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # its parts import each other by it
    spec.loader.exec_module(module)
    return module


_publish = _real_publish()


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Any]:
    """The function's own service, with another clock."""
    async with _publish.open_service(telemetry) as publisher:
        publisher.clock = lambda: datetime.now(UTC) + timedelta(seconds=SHIFT_S)
        yield publisher


function = _publish.Function("publish", _publish.settings, open_service, _publish.handle)


@functions_framework.aio.http
async def publish(request: Request) -> Response:
    """The function."""
    answer: Response = await function(request)
    return answer
