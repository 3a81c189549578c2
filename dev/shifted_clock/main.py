"""Run the real `publish` with a clock that is `CLOCK_SHIFT_S` seconds ahead, for events and for Kafka records."""

import importlib.util
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twofold.observability.telemetry import Telemetry
from twofold.web.function import serve
from twofold.write.publisher import Publisher

SHIFT_S = float(os.environ["CLOCK_SHIFT_S"])
_MAIN = Path(__file__).resolve().parents[2] / "functions" / "publish" / "main.py"

_time = time.time
vars(time)["time"] = lambda: _time() + SHIFT_S


def _real_publish() -> Any:
    """Return the module `functions/publish/main.py`."""
    name, folder = "publish_main", str(_MAIN.parent)
    spec = importlib.util.spec_from_file_location(name, _MAIN, submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"{_MAIN} does not exist")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # publish's modules import this name
    spec.loader.exec_module(module)
    return module


_publish = _real_publish()


@asynccontextmanager
async def open_service(telemetry: Telemetry) -> AsyncIterator[Any]:
    """Open the function's service and set its clock."""
    async with _publish.open_service(telemetry) as publisher:
        publisher.clock = lambda: datetime.now(UTC) + timedelta(seconds=SHIFT_S)
        yield publisher


publish = serve("publish", open_service, _publish.handle, finish=Publisher.flush, topic=_publish.settings.kafka_topic)
