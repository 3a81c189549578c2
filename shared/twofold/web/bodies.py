"""The bodies of requests and of JSON answers."""

import asyncio
from contextlib import nullcontext

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from twofold.errors import Malformed, TooLarge, Unavailable, UnsupportedCoding, cut_text
from twofold.settings import BodySettings
from twofold.web.gzip import MAX_RATIO, decompressed

BUDGET = "twofold.body_budget"
"""The name of the process's `BodyBudget` in the scope of a request."""
HELD = "twofold.held_bytes"
"""The name of the bytes of the budget in the scope of a request."""
CHEAP_GZIP_BYTES = 4 * 1024
"""The largest gzip body that is decoded in the event loop: it makes at most 4 MiB, which takes 15 ms."""
_MAX_CODING_CHARS = 64


class BodyBudget:
    """The bytes of the bodies that a process holds: bodies that arrive in pieces, until their request is answered."""

    def __init__(self, settings: BodySettings) -> None:
        self.capacity = settings.body_capacity_bytes
        self.timeout_s = settings.body_timeout_s
        self.held = 0
        self.decoding = asyncio.Lock()
        """Held while a gzip body is decoded, so only one body reserves the most bytes that it can need."""

    def take(self, size: int, own: int) -> None:
        """Count `size` bytes more of a body with `own` bytes so far. Raises `Unavailable` beyond the capacity.

        A body that is alone is taken.
        """
        if self.held > own and self.held + size > self.capacity:
            raise Unavailable("too many bytes of requests are under way: send the request again later")
        self.held += size

    def release(self, size: int) -> None:
        """Count `size` bytes less."""
        self.held -= size


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body. Its bytes count in the process's `BodyBudget` until the request is answered.

    A body in gzip is decoded, and `max_bytes` bounds its decoded bytes too. Raises `UnsupportedCoding` for another
    coding, and `Malformed` for invalid gzip. Raises `TooLarge` as soon as more than `max_bytes` are announced or have
    come. Raises `Unavailable` if the budget is used up, or if the body takes too long.
    """
    given = [value for name, value in request.scope["headers"] if name == b"content-encoding"]
    is_gzip = _is_gzip(given) if given else False
    message = await request.receive()
    if message["type"] == "http.disconnect" or message.get("more_body", False):
        body = await _read_rest(request, message, max_bytes)
    else:  # most bodies come in a single message
        body = message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return await _decompress(request, body, max_bytes) if is_gzip and body else body


def _is_gzip(given: list[bytes]) -> bool:
    """Return True for the coding gzip, and False for no coding. Raises `UnsupportedCoding`."""
    codings = [coding.strip().lower() for coding in b",".join(given).decode("latin-1").split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if codings and codings not in (["gzip"], ["x-gzip"]):
        named = cut_text(", ".join(codings), _MAX_CODING_CHARS)
        raise UnsupportedCoding(
            f"the coding {named!a} is not supported: send the body in gzip, or without a coding", "content-encoding"
        )
    return bool(codings)


async def _decompress(request: Request, body: bytes, max_bytes: int) -> bytes:
    """Return the decoded body. The decoding reserves the most bytes that it can need, and then gives back the rest."""
    budget: BodyBudget | None = request.scope.get(BUDGET)
    most = min(max_bytes, MAX_RATIO * len(body))
    async with budget.decoding if budget else nullcontext():
        _hold(request, most)
        if len(body) <= CHEAP_GZIP_BYTES:
            decoded = decompressed(body, max_bytes)
        else:
            decoded = await asyncio.to_thread(decompressed, body, max_bytes)
        _release(request, most - len(decoded))
    return decoded


def _hold(request: Request, size: int) -> None:
    """Count bytes of the request in the process's budget until the request is answered. Raises `Unavailable`."""
    budget: BodyBudget | None = request.scope.get(BUDGET)
    if budget is not None:
        own = request.scope.get(HELD, 0)
        budget.take(size, own)
        request.scope[HELD] = own + size


def _release(request: Request, size: int) -> None:
    """Count fewer bytes of the request."""
    budget: BodyBudget | None = request.scope.get(BUDGET)
    if budget is not None:
        budget.release(size)
        request.scope[HELD] -= size


async def _read_rest(request: Request, message: Message, max_bytes: int) -> bytes:
    """Return a body in several messages, as it was sent. `message` is the first one."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    budget: BodyBudget | None = request.scope.get(BUDGET)
    try:
        async with asyncio.timeout(budget.timeout_s if budget else None):
            return await _read_pieces(request, message, max_bytes)
    except TimeoutError:
        raise Unavailable("the body did not arrive in time: send the request again") from None


async def _read_pieces(request: Request, message: Message, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise Malformed("the connection ended before the end of the body: send the request again")
        piece = message.get("body", b"")
        if len(body) + len(piece) > max_bytes:
            raise _too_large(max_bytes)
        _hold(request, len(piece))
        body += piece
        if not message.get("more_body", False):
            return bytes(body)
        message = await request.receive()


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body has more than {max_bytes} bytes: send less in one request")


def require_method(request: Request, *methods: str, path: str = "/") -> None:
    """Raise `HTTPException` 404 or 405 unless `request` is for `path` with one of `methods`."""
    if request.scope["path"] != path:  # `request.url` takes 3 us to make
        raise HTTPException(404)
    if request.scope["method"] not in methods:
        raise HTTPException(405, headers={"Allow": ", ".join(methods)})


class JsonResponse(Response):
    """An answer in JSON. pydantic writes it in a tenth of the time of Starlette's class, and writes times and ids."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Return `content` as JSON."""
        return to_json(content)
