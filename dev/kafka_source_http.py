"""HTTP/1.1 as the data plane's Vert.x client speaks it: binary mode, and header values as raw Latin-1 bytes.

No client from PyPI sends those: aiohttp writes UTF-8 and refuses some values itself, httpx writes ASCII. This one knows
one plain-text address, follows no redirect, and keeps its connections.
"""

import asyncio
from typing import cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from dev.kafka_source_event import Response, SourceEvent
from dev.kafka_source_java import header_bytes

_USER_AGENT = b"Vert.x-WebClient/4.5.27"


class Destination:
    """A sink's address, and its idle connections. An answer later than `timeout` seconds is none."""

    def __init__(self, url: str, namespace: str, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"not an http:// URL: {url}")
        self.url = url
        self.timeout = timeout
        self._address = (parts.hostname, parts.port or 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = b"".join(
            (
                f"POST {target} HTTP/1.1\r\nPrefer: reply\r\nKn-Namespace: {namespace}\r\n".encode("latin-1"),
                b"user-agent: " + _USER_AGENT + b"\r\n",
                f"host: {parts.netloc}\r\n".encode("latin-1"),
            )
        )
        self._idle: list[_Connection] = []

    def request(self, event: SourceEvent) -> bytes:
        """The request that carries this event. Raises `RefusedByVertx`."""
        lines = [self._head]
        for name, value in event.attributes.items():
            header = "content-type" if name == "datacontenttype" else f"ce-{name}"
            lines.append(b"%s: %s\r\n" % (header.encode("ascii"), header_bytes(value)))
        data = event.data or b""
        lines.append(b"content-length: %d\r\n\r\n" % len(data))
        lines.append(data)
        return b"".join(lines)

    async def post(self, request: bytes) -> Response:
        """Send it and return the answer. Raises `OSError`, of which `TimeoutError` is one."""
        async with asyncio.timeout(self.timeout):
            connection = self._idle.pop() if self._idle else await self._connect()
            return await connection.exchange(request)

    async def _connect(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._idle), *self._address
        )
        return connection

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle.copy():
            connection.close()


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it; it puts itself among the idle ones after an answer."""

    def __init__(self, idle: list["_Connection"]) -> None:
        self._idle = idle
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._has_head = False

    async def exchange(self, request: bytes) -> Response:
        """Send a request and wait for its answer; whoever stops waiting loses the connection."""
        if self._transport is None:
            raise ConnectionResetError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is no HTTP ends the connection."""
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(ConnectionError(f"no HTTP answer: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange; an answer without a length ends with the connection."""
        self._transport = None
        if self in self._idle:
            self._idle.remove(self)
        if exc is None and self._has_head:
            self._finish()
        else:
            self._fail(ConnectionResetError("the connection was closed before the answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        keep = self._parser.should_keep_alive()
        self._finish()
        if keep and self._transport is not None:
            self._idle.append(self)
        else:
            self.close()

    def _finish(self) -> None:
        response = Response(self._parser.get_status_code(), self._headers, bytes(self._body))
        self._headers, self._body, self._has_head = [], bytearray(), False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(response)

    def _fail(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
