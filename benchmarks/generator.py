"""A load generator for machines without wrk: `python -m benchmarks.generator PORT REQUESTS SECONDS`.

It speaks as little HTTP/1.1 as it takes: ready-made requests out, a status and a content-length in.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.events import read
from benchmarks.figures import Load
from benchmarks.load import CONNECTIONS

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


class Tally:
    """What is sent next, and what was answered."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = requests
        self._position = 0
        self.running = True
        self.answered = self.refused = self.broken = 0
        self.repeated = False
        self.latencies: list[float] = []

    def next(self) -> bytes:
        """The next request; from the first again, and noted, when all were sent."""
        if self._position == len(self._requests):
            self._position, self.repeated = 0, True
        self._position += 1
        return self._requests[self._position - 1]

    def take(self, status: bytes, latency_s: float) -> None:
        """Count an answer."""
        self.answered += 1
        self.refused += not status.startswith(b"2")
        self.latencies.append(latency_s)


class Connection(asyncio.Protocol):
    """One connection with one request under way, until the tally is closed."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count the answer when it is whole, and send the next request."""
        self._received += data
        head, end, body = self._received.partition(_HEAD_END)
        if not end:
            return
        length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
        if not length.strip().isdigit():
            self.stop()  # chunked: no function here answers so
        elif self._tally.running and len(body) >= int(length):
            self._received = b""
            self._tally.take(head[9:12], time.perf_counter() - self._sent_at)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection is to last as long as the run."""
        self._tally.broken += self._tally.running

    def stop(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        if self._transport is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(self._tally.next())


async def generate(port: int, requests: list[bytes], seconds: float) -> Load:
    """Keep 64 connections busy for that many seconds."""
    tally = Tally(requests)
    connections = [Connection(tally) for _ in range(CONNECTIONS)]
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for connection in connections:
        await loop.create_connection(lambda made=connection: made, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(seconds)
    tally.running = False
    took = time.perf_counter() - began
    for connection in connections:
        connection.stop()
    ordered = sorted(tally.latencies) or [0.0]
    return Load(
        answered=tally.answered,
        refused=tally.refused,
        broken=tally.broken,
        seconds=took,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[len(ordered) * 99 // 100] * 1000,
        repeated=tally.repeated,
    )


def main() -> None:
    """Print the load as a JSON line."""
    port, requests, seconds = sys.argv[1:]
    load = uvloop.run(generate(int(port), read(Path(requests)), float(seconds)))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
