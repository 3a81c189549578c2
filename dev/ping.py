"""PingSource's stand-in: `python -m dev.ping` posts an empty CloudEvent to a function every N seconds.

It is as lossy as PingSource (`dev.adapter`). A tick that passes during a delivery is skipped.
"""

import argparse
import sys
import time
import uuid
from datetime import UTC, datetime

import httpx

from dev.adapter import deliver


def ping_headers(name: str, now: datetime) -> dict[str, str]:
    """A new event in HTTP binary mode, as PingSource `name` sends it."""
    return {
        "ce-specversion": "1.0",
        "ce-id": str(uuid.uuid4()),
        "ce-type": "dev.knative.sources.ping",
        "ce-source": f"/apis/v1/namespaces/local/pingsources/{name}",
        "ce-time": now.isoformat().replace("+00:00", "Z"),
        "content-type": "application/json",
    }


def run(sink: str, name: str, every: float) -> None:
    """Ping for ever."""
    with httpx.Client(timeout=60.0) as client:
        due = time.monotonic() + every
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + every, time.monotonic())
            headers = ping_headers(name, datetime.now(UTC))
            print(headers["ce-time"], headers["ce-id"], deliver(client, sink, headers), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sink", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--every", type=float, required=True, help="seconds")
    options = parser.parse_args(sys.argv[1:])
    run(options.sink, options.name, options.every)


if __name__ == "__main__":
    main()
