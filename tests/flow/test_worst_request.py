"""The worst request: no request of any content, up to the limit of a body, takes a function from its other callers."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings, target
from hypothesis import strategies as st

from benchmarks.worst import (
    LIMITS,
    MAX_ANSWER_BYTES,
    MAX_BLOCK_MS,
    MAX_RSS_MIB,
    PLACES,
    UNITS,
    Shape,
    cost_of,
    headers_for,
)
from dev.process.child import wait_until
from dev.stack import Options, Stack
from dev.stack.functions import FunctionProcess
from tests.conftest import Spawner
from tests.helpers import View, an_event, bearer

FUNCTIONS = sorted(LIMITS)


@pytest.fixture(scope="module")
def four(broker_name: str) -> Iterator[Stack]:
    """Start a stack of its own: the test measures its functions."""
    with Stack(Options(broker=broker_name, with_functions=tuple(FUNCTIONS))) as running:
        yield running


def within_bounds(stack: Stack, name: str, shape: Shape) -> float:
    cost = cost_of(stack.functions[name], name, shape, headers_for(name, stack.token))
    assert cost.block_ms <= MAX_BLOCK_MS, shape
    assert cost.rss_mib <= MAX_RSS_MIB, shape
    assert cost.answer_bytes <= MAX_ANSWER_BYTES, shape
    return cost.block_ms


@pytest.mark.fault("B2", "B5")
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape("batch of extensions", '""'), id="empty extensions"),
        pytest.param(Shape("batch of data", "[" * 90 + "]" * 90), id="nested lists"),
        pytest.param(Shape("data", "1e-7"), id="numbers"),
    ],
)
def test_a_request_that_was_too_much_is_within_the_bounds(four: Stack, name: str, shape: Shape) -> None:
    """These requests blocked `publish` for seconds, took 748 MiB, and had an answer of 101 MB."""
    within_bounds(four, name, shape)


_JSON = st.recursive(
    st.one_of(st.sampled_from(UNITS), st.integers().map(str), st.floats().map(json.dumps), st.text(max_size=5)),
    lambda inner: st.one_of(
        inner.map("[{}]".format), inner.map('{{"":{}}}'.format), st.tuples(inner, inner).map(",".join)
    ),
    max_leaves=4,
)
_shapes = st.builds(
    Shape, st.sampled_from(PLACES), _JSON.filter(lambda unit: unit.isprintable() and unit.strip() != "")
)


@pytest.mark.fault("B2", "B5")
@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_request_is_beyond_the_bounds(four: Stack, name: str) -> None:
    """The search prefers contents that block for longer."""

    @settings(
        max_examples=60,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.target],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(_shapes)
    @example(Shape("text", "\\u0061"))
    def search(shape: Shape) -> None:
        target(within_bounds(four, name, shape))

    search()


# --- B4: many requests at once ------------------------------------------------------------------------------------


def resident_mib(function: FunctionProcess) -> float:
    lines = [line for pid in function.worker_pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def held(function: FunctionProcess, number: int, size: int, headers: str) -> list[socket.socket]:
    """Send that many requests without their last byte."""
    address = urlsplit(function.url)
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n{headers}\r\n".encode()
    sockets = []
    for _ in range(number):
        connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=30)
        connection.sendall(head + b"[" + b" " * (size - 2))
        sockets.append(connection)
    return sockets


@pytest.mark.fault("B4")
@pytest.mark.parametrize(
    ("name", "number", "size"), [("publish", 130, 4 * 1024 * 1024), ("store", 45, 12 * 1024 * 1024)]
)
def test_slow_requests_take_no_more_than_the_budget(
    flow: View, spawn: Spawner, name: str, number: int, size: int
) -> None:
    """The rest gets 503 at once. A small request is answered all the time, and a large one when the bytes are free."""
    function = spawn(name)
    batch = {"content-type": "application/cloudevents-batch+json"}
    size, large = LIMITS[name], b"[]".rjust(1_000_000 if name == "publish" else 5_000_000)
    headers = "".join(f"{key}: {value}\r\n" for key, value in (bearer() | batch).items())
    sockets = held(function, number, size, headers)
    try:
        assert resident_mib(function) < 300
        small = (
            flow.publish(an_event(), function.url) if name == "publish" else flow.http.post(function.url, content=b"{}")
        )
        assert small.status_code in (200, 202)
        refused = flow.http.post(function.url, content=large, headers=batch)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    finally:
        for connection in sockets:
            connection.close()
    expected = 202 if name == "publish" else 200  # an empty batch is valid
    wait_until(
        lambda: flow.http.post(function.url, content=large, headers=batch).status_code == expected, within=20, every=0.2
    )


@pytest.mark.fault("B4")
def test_a_body_that_takes_too_long_is_let_go(flow: View, spawn: Spawner) -> None:
    function = spawn("publish", BODY_TIMEOUT_S="0.5")
    (connection,) = held(function, 1, 1_000_000, f"authorization: {bearer()['authorization']}\r\n")
    start = time.monotonic()
    with connection:
        assert connection.recv(12) == b"HTTP/1.1 503"
    assert time.monotonic() - start < 10
