"""A load generator for machines without wrk: `python -m benchmarks.generator PORT REQUESTS SECONDS`.

It writes ready-made requests, and reads only a status and a content-length. Because a client for applications, as
`dev.load.producer` has it, would be slower than the measured functions, the two share no code.
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
from benchmarks.figures import LoadResult
from benchmarks.load import CONNECTIONS

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


class Tally:
    """The requests to send, and the counts of the answers."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = requests
        self._position = 0
        self.running = True
        self.answered = self.refused = self.broken = 0
        self.repeated = False
        self.latencies: list[float] = []

    def next(self) -> bytes:
        """Return the next request. After the last request, begin again and note it."""
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
    """A connection with one request at a time, until the end of the run."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport has another base class
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count the answer as soon as it is complete, and send the next request."""
        self._received += data
        head, end, body = self._received.partition(_HEAD_END)
        if not end:
            return
        length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
        if not length.strip().isdigit():
            self.stop()  # a chunked answer: measured functions never send it
        elif self._tally.running and len(body) >= int(length):
            self._received = b""
            self._tally.take(head[9:12], time.perf_counter() - self._sent_at)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that ends before the run."""
        self._tally.broken += self._tally.running

    def stop(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        if self._transport is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(self._tally.next())


async def generate(port: int, requests: list[bytes], seconds: float) -> LoadResult:
    """Keep 64 connections busy for `seconds`."""
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
    return LoadResult(
        answered=tally.answered,
        refused=tally.refused,
        broken=tally.broken,
        seconds=took,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[len(ordered) * 99 // 100] * 1000,
        repeated=tally.repeated,
    )


def main() -> None:
    """Print the result as a line of JSON."""
    port, requests, seconds = sys.argv[1:]
    load = uvloop.run(generate(int(port), read(Path(requests)), float(seconds)))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
