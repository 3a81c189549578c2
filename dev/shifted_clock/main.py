"""`publish` on a machine whose clock is `CLOCK_SHIFT_S` seconds ahead, for its events and for its Kafka records.

This module runs the real function with another clock. The product has no setting for the clock.
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
    """Import `functions/publish/main.py`, as functions-framework imports it in its folder."""
    name, folder = "publish_main", str(_MAIN.parent)
    spec = importlib.util.spec_from_file_location(name, _MAIN, submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"{_MAIN} does not exist")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # the parts of `publish` import it by name
    spec.loader.exec_module(module)
    return module


_publish = _real_publish()


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Any]:
    """Open the service of the function, with another clock."""
    async with _publish.open_service(telemetry) as publisher:
        publisher.clock = lambda: datetime.now(UTC) + timedelta(seconds=SHIFT_S)
        yield publisher


function = _publish.Function("publish", _publish.settings, open_service, _publish.handle)


@functions_framework.aio.http
async def publish(request: Request) -> Response:
    """Answer a request as the real function does."""
    answer: Response = await function(request)
    return answer
