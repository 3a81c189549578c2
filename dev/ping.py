"""A stand-in for PingSource: `python -m dev.ping` posts an empty CloudEvent to a function every N seconds.

It is as lossy as PingSource (`dev.adapter`), and skips the ticks that pass during a delivery.
"""

import time
import uuid
from datetime import UTC, datetime
from typing import Annotated

import httpx
import typer

from dev.adapter import deliver


def ping_headers(name: str, now: datetime) -> dict[str, str]:
    """Return the headers of a new event in HTTP binary mode, as PingSource `name` sends it."""
    return {
        "ce-specversion": "1.0",
        "ce-id": str(uuid.uuid4()),
        "ce-type": "dev.knative.sources.ping",
        "ce-source": f"/apis/v1/namespaces/local/pingsources/{name}",
        "ce-time": now.isoformat().replace("+00:00", "Z"),
        "content-type": "application/json",
    }


def ping(
    sink: Annotated[str, typer.Option()],
    name: Annotated[str, typer.Option()],
    every: Annotated[float, typer.Option(help="seconds")],
) -> None:
    """Send pings for ever."""
    with httpx.Client(timeout=60.0) as client:
        due = time.monotonic() + every
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + every, time.monotonic())
            headers = ping_headers(name, datetime.now(UTC))
            print(headers["ce-time"], headers["ce-id"], deliver(client, sink, headers), flush=True)


if __name__ == "__main__":
    typer.run(ping)
