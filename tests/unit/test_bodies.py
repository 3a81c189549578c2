"""The body of a request: its coding, its bounds, and its bytes in the budget of the process."""

import asyncio
import gzip
import random
import threading
import time
import tracemalloc
import zlib

import pytest
from starlette.requests import Request
from starlette.types import Message

from twofold.errors import Malformed, TooLarge, Unavailable, UnsupportedCoding
from twofold.settings import BodySettings
from twofold.web import bodies
from twofold.web.bodies import BUDGET, CHEAP_GZIP_BYTES, HELD, BodyBudget, read_body
from twofold.web.gzip import MAX_MEMBERS, MAX_RATIO, decompressed
from twofold.web.problems import problem_response

pytestmark = pytest.mark.guarantee("R3")

MIB = 1024 * 1024
BODY = b'{"total": 3}'


def a_request(body: bytes, *codings: str, budget: BodyBudget | None = None, pieces: int = 1) -> Request:
    size = max(-(-len(body) // pieces), 1)
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, start=1)
    ]
    following = iter(messages)

    async def receive() -> Message:
        return next(following)

    headers = [(b"content-encoding", coding.encode()) for coding in codings]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, BUDGET: budget}, receive)


@pytest.mark.parametrize("codings", [(), ("identity",), ("Identity, ",), ("",)])
async def test_a_body_without_a_coding_is_read_as_it_is(codings: tuple[str, ...]) -> None:
    assert await read_body(a_request(BODY, *codings), 100) == BODY


@pytest.mark.parametrize("codings", [("gzip",), ("GZip",), ("x-gzip",), (" gzip , identity",), ("identity", "gzip")])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_body_in_gzip_is_decoded(codings: tuple[str, ...], pieces: int) -> None:
    assert await read_body(a_request(gzip.compress(BODY), *codings, pieces=pieces), 100) == BODY


@pytest.mark.parametrize(
    "codings", [("br",), ("deflate",), ("gzip, gzip",), ("gzip", "br"), ("zstd" * 100,), ("a\tb",)]
)
async def test_another_coding_is_refused_with_its_name_and_the_supported_coding(codings: tuple[str, ...]) -> None:
    """The header is that of RFC 7694. The error cuts a long name."""
    with pytest.raises(UnsupportedCoding) as caught:
        await read_body(a_request(BODY, *codings), 100)
    assert ascii(", ".join(codings))[1:-1][:60] in caught.value.detail
    assert "send the body in gzip" in caught.value.detail
    assert len(caught.value.detail) < 300
    assert caught.value.problems[0].where == "content-encoding"
    response = problem_response(caught.value)
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "gzip")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (BODY, "not valid gzip"),
        (zlib.compress(BODY), "not valid gzip"),
        (gzip.compress(BODY)[:5], "ends early"),
        (gzip.compress(BODY)[:-1], "ends early"),
        (gzip.compress(BODY)[:-8] + bytes(8), "not valid gzip"),
        (gzip.compress(BODY) + b"\0", "ends early"),
        (gzip.compress(BODY) + b"garbage", "other bytes after its end"),
        (gzip.compress(BODY) * 2 + b"garbage", "other bytes after its end"),
        (gzip.compress(b"") * (MAX_MEMBERS + 1), "members"),
    ],
    ids=map(str, range(9)),  # the data hold the time, so names made of them would differ between two processes
)
async def test_invalid_gzip_is_refused_with_its_reason(data: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says) as caught:
        await read_body(a_request(data, "gzip"), 10_000)
    assert caught.value.problems[0].where == "content-encoding"


def test_the_members_of_a_gzip_body_are_joined() -> None:
    assert decompressed(gzip.compress(BODY) + gzip.compress(b"") + gzip.compress(BODY), 100) == BODY * 2
    assert decompressed(gzip.compress(b"") * MAX_MEMBERS, 100) == b""


@pytest.mark.fault("B5")
@pytest.mark.parametrize("members", [1, 2, 5])
def test_the_decoded_size_has_a_bound(members: int) -> None:
    data = gzip.compress(b"x" * 20) * members
    assert decompressed(data, 20 * members) == b"x" * 20 * members
    with pytest.raises(TooLarge, match=f"more than {20 * members - 1} bytes"):
        decompressed(data, 20 * members - 1)


@pytest.mark.fault("B5")
@pytest.mark.parametrize("size", [CHEAP_GZIP_BYTES, MIB])
async def test_a_gzip_bomb_takes_no_more_memory_than_its_bound(size: int) -> None:
    """The body decodes to a thousand times its size: a GiB for the larger one."""
    decoder = zlib.compressobj(9, wbits=31)
    bomb = b"".join(decoder.compress(bytes(MIB)) for _ in range(size // 1024)) + decoder.flush()
    assert len(bomb) > size * 0.9
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            await read_body(a_request(bomb, "gzip"), MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * (MIB + 1) + len(bomb) + MIB / 4, "zlib joins its blocks, so the decoded bytes are there twice"


def test_the_largest_ratio_of_gzip_is_not_exceeded() -> None:
    for size in (1, 1000, MIB, 64 * MIB):
        assert size <= MAX_RATIO * len(gzip.compress(bytes(size)))


@pytest.mark.fault("B4")
@pytest.mark.parametrize("pieces", [1, 3])
async def test_the_decoded_bytes_count_in_the_budget(pieces: int) -> None:
    budget = BodyBudget(BodySettings())
    data = gzip.compress(b"x" * 10_000)
    request = a_request(data, "gzip", budget=budget, pieces=pieces)
    assert len(await read_body(request, MIB)) == 10_000
    assert request.scope[HELD] == budget.held == 10_000 + (len(data) if pieces > 1 else 0)


@pytest.mark.fault("B4")
async def test_a_gzip_body_is_refused_before_it_is_decoded_if_the_budget_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The decoding may need all bytes up to the bound. A body alone is taken."""

    def never(_: bytes, __: int) -> bytes:
        raise AssertionError("the body was decoded")

    data = gzip.compress(b"x" * 10_000)
    budget = BodyBudget(BodySettings(body_capacity_bytes=20_000))
    assert await read_body(a_request(data, "gzip", budget=budget), 15_000)
    monkeypatch.setattr(bodies, "decompressed", never)
    with pytest.raises(Unavailable, match="too many bytes"):
        await read_body(a_request(data, "gzip", budget=budget), 15_000)
    assert budget.held == 10_000


@pytest.mark.fault("B4")
async def test_many_small_gzip_bodies_at_once_are_decoded_in_turn() -> None:
    """Each of them could decode to megabytes, and only the one in the thread reserves them."""
    budget = BodyBudget(BodySettings())
    data = gzip.compress(random.Random(1).randbytes(CHEAP_GZIP_BYTES + 1000))
    read = [read_body(a_request(data, "gzip", budget=budget), 4 * MIB) for _ in range(100)]
    assert {len(body) for body in await asyncio.gather(*read)} == {CHEAP_GZIP_BYTES + 1000}


async def test_an_empty_gzip_body_is_empty() -> None:
    assert await read_body(a_request(b"", "gzip"), MIB) == b""


@pytest.mark.fault("B5")
@pytest.mark.parametrize(("more", "elsewhere"), [(0, False), (1, True)])
async def test_a_large_gzip_body_is_decoded_in_a_thread(
    more: int, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noting(body: bytes, _: int) -> bytes:
        threads.append(threading.current_thread() is not threading.main_thread())
        return body

    monkeypatch.setattr(bodies, "decompressed", noting)
    await read_body(a_request(bytes(CHEAP_GZIP_BYTES + more), "gzip"), MIB)
    assert threads == [elsewhere]


@pytest.mark.fault("B5")
async def test_the_event_loop_runs_while_a_large_body_is_decoded() -> None:
    turns: list[float] = []

    async def turn() -> None:
        while True:
            turns.append(time.perf_counter())
            await asyncio.sleep(0.001)

    turning = asyncio.create_task(turn())
    data = gzip.compress(b"".join(str(number).encode() for number in range(4_000_000)))
    await asyncio.sleep(0.01)
    before = len(turns)
    assert len(await read_body(a_request(data, "gzip"), 64 * MIB)) > 20 * MIB
    turning.cancel()
    assert len(turns) - before > 3
