"""The worst request: one request of any content, up to the limit of a body, and its cost for a function.

A request has a shape: a small text that is repeated up to the limit, in one of the places where a request holds values.
While a function answers it, a second client asks for `/healthz` all the time. The longest answer there is the time for
which the event loop was blocked. Time in which the function got no processor does not count: other programs took it.
"""

import http.client
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase, digits
from typing import NamedTuple
from urllib.parse import urlsplit

from dev.stack import Stack
from dev.stack.functions import FunctionProcess

MAX_BLOCK_MS = 250.0
MAX_RSS_MIB = 300.0
MAX_ANSWER_BYTES = 1024 * 1024
TRIES = 3
"""The tries of a shape that blocks for too long. Other processes of the machine can delay an answer."""

LIMITS = {"publish": 4 * 1024 * 1024, "store": 12 * 1024 * 1024, "dead_letters": 12 * 1024 * 1024}
LIMITS["pod_events"] = 12 * 1024 * 1024

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")

PLACES = ("data", "text", "extensions", "batch", "batch of data", "batch of extensions", "whole body")
UNITS = (
    *("[]", "{}", "[[[[0]]]]", '{"":0}', "1", "1e-7", "1e999", "0.1111111111", '"x"', '"\\u0061"', '"\\ud800"', "null"),
    *("[" * 90 + "]" * 90, '{"a":' * 90 + "1" + "}" * 90, '{"\\u0061":0}', '"é"', "9" * 4000, '""'),
    *('{"specversion":"1.0","type":"t","source":"/s","id":""}', '{"id":1,"id":1}', "[" * 1000, "\x00", "\\", '"'),
)


class Shape(NamedTuple):
    """The content of a request."""

    place: str
    """A value of `PLACES`."""
    unit: str
    """The repeated text, JSON or not."""

    def body(self, size: int) -> tuple[str, bytes]:
        """Return the content type and the body of at most `size` bytes."""
        head, tail = '{"specversion":"1.0","type":"t","source":"/s","id":"1"', "}"
        if self.place == "data":
            return _STRUCTURED, _filled((head + ',"data":{"a":[', "]}" + tail), self.unit, ",", size)
        if self.place == "text":
            return _STRUCTURED, _filled((head + ',"data":{"a":"', '"}' + tail), self.unit, "", size)
        if self.place == "extensions":
            return _STRUCTURED, _numbered(head, self.unit, tail, size)
        if self.place == "batch":
            return _BATCH, _filled(("[", "]"), self.unit, ",", size, most=1000)
        if self.place == "batch of data":
            part = size // 4 - 1
            members = (_filled((head + ',"data":{"a":[', "]}" + tail), self.unit, ",", part) for _ in range(4))
            return _BATCH, b"[" + b",".join(members) + b"]"
        if self.place == "batch of extensions":
            part = size // 42 - 1600  # the names of an event have a little less than 32 KiB then
            return _BATCH, b"[" + b",".join([_numbered(head, self.unit, tail, part)] * 42) + b"]"
        return _STRUCTURED, _filled(("", ""), self.unit, "", size)


_STRUCTURED, _BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"

KNOWN = tuple(Shape(place, unit) for place in PLACES for unit in UNITS[:6] + UNITS[12:15])
"""The shapes of `make bench-full`."""


def _filled(around: tuple[str, str], unit: str, between: str, size: int, most: int | None = None) -> bytes:
    head, tail = around
    room = size - len(head.encode()) - len(tail.encode())
    each = len((unit + between).encode())
    number = max(room // each, 1) if most is None else min(most, max(room // each, 1))
    return (head + between.join([unit] * number) + tail).encode()


def _numbered(head: str, unit: str, tail: str, size: int) -> bytes:
    """Return an event with as many extensions as fit, each with a name of its own."""
    number = max((size - len(head) - len(tail)) // (len(unit.encode()) + 7), 1)
    letters = 3 if number <= 36**3 else 4
    number = max((size - len(head) - len(tail)) // (len(unit.encode()) + 4 + letters), 1)
    names = map("".join, islice(product(ascii_lowercase + digits, repeat=letters), number))
    return (head + "".join(f',"{name}":{unit}' for name in names) + tail).encode()


@dataclass
class Cost:
    """The cost of a request for a function."""

    block_ms: float
    rss_mib: float
    answer_bytes: int
    status: int

    def as_bad_as(self, other: "Cost") -> "Cost":
        """Return the greater of each figure."""
        return Cost(
            max(self.block_ms, other.block_ms),
            max(self.rss_mib, other.rss_mib),
            max(self.answer_bytes, other.answer_bytes),
            max(self.status, other.status),
        )


def cost_of(function: FunctionProcess, name: str, shape: Shape, headers: Mapping[str, str]) -> Cost:
    """Return the cost of the request, with the shortest block of up to `TRIES` tries."""
    media, body = shape.body(LIMITS[name])
    cost = _cost(function, body, {"content-type": media, **headers})
    for _ in range(TRIES - 1):
        if cost.block_ms <= MAX_BLOCK_MS:
            break
        again = _cost(function, body, {"content-type": media, **headers})
        cost = Cost(min(cost.block_ms, again.block_ms), again.rss_mib, cost.answer_bytes, cost.status)
    return cost


def headers_for(name: str, token: str) -> dict[str, str]:
    """Return the headers of a function's usual caller."""
    if name == "publish":
        return {"authorization": f"Bearer {token}"}
    attributes = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
    if name == "pod_events":
        return attributes | {"ce-type": "dev.knative.apiserver.resource.update", "content-type": "application/json"}
    return attributes | {
        "ce-time": "2026-01-01T00:00:00.000Z",
        "ce-digest": "0" * 64,
        "content-type": "application/json",
    }


def worst(stack: Stack, shapes: tuple[Shape, ...] = KNOWN) -> Cost:
    """Return the greatest figures of the shapes, over all functions of the stack that take events."""
    found = Cost(0.0, 0.0, 0, 0)
    for name in LIMITS.keys() & stack.functions.keys():
        for shape in shapes:
            found = found.as_bad_as(cost_of(stack.functions[name], name, shape, headers_for(name, stack.token)))
    return found


def _cost(function: FunctionProcess, body: bytes, headers: Mapping[str, str]) -> Cost:
    _reset_peaks(function)
    with _Pings(function) as pings:
        status, size = _post(function, body, headers)
    return Cost(pings.longest_ms, _peak_mib(function), size, status)


def _post(function: FunctionProcess, body: bytes, headers: Mapping[str, str]) -> tuple[int, int]:
    address = urlsplit(function.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    try:
        connection.request("POST", "/", body, dict(headers))
        answer = connection.getresponse()
        return answer.status, len(answer.read())
    finally:
        connection.close()


class _Pings:
    """Asks for `/healthz` during the block, and keeps the longest answer in `longest_ms`."""

    def __init__(self, function: FunctionProcess) -> None:
        self._address = urlsplit(function.url)
        self._pids = tuple(function.worker_pids)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest_ms = 0.0

    def __enter__(self) -> "_Pings":
        self._thread.start()
        time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=120)
        while not self._stopped.is_set():
            start, computed = time.perf_counter(), _computed_ms(self._pids)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            took_ms = (time.perf_counter() - start) * 1000
            self.longest_ms = max(self.longest_ms, min(took_ms, _computed_ms(self._pids) - computed + _TICK_MS))
            time.sleep(0.002)
        connection.close()


def _computed_ms(pids: Iterable[int]) -> float:
    """Return the time on a processor, all threads included: `utime` and `stime` of proc(5)."""
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) * _TICK_MS


def _reset_peaks(function: FunctionProcess) -> None:
    """Reset `VmHWM` (proc(5), `clear_refs`)."""
    for pid in function.worker_pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_mib(function: FunctionProcess) -> float:
    lines = [line for pid in function.worker_pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
