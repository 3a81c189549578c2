"""PingSource's stand-in: `python -m dev.ping` posts an empty CloudEvent to a function every N seconds.

It is as lossy as PingSource: one request at a time, five retries from 50 ms and only for PingSource's own
list of statuses and for connection errors, then the event is gone. A tick that passes meanwhile is skipped.
"""

import argparse
import sys
import time
import uuid
from datetime import UTC, datetime

import httpx

RETRIED = frozenset({404, 413, 425, 429, 502, 503, 504})
"""Knative's list for adapters (eventing v1.22); a 500 is final."""

RETRIES = 5
FIRST_DELAY_S = 0.05


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


def deliver(client: httpx.Client, sink: str, headers: dict[str, str]) -> str:
    """Post one event, with PingSource's retries; what became of it, in words."""
    outcome = "not tried"
    for attempt in range(1 + RETRIES):
        if attempt:
            time.sleep(FIRST_DELAY_S * 2 ** (attempt - 1))
        try:
            status = client.post(sink, headers=headers, content=b"{}").status_code
        except httpx.HTTPError as error:
            outcome = f"{type(error).__name__} after {attempt + 1} tries"
            continue
        outcome = f"{status} after {attempt + 1} tries"
        if status not in RETRIED:
            break
    return outcome


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
