"""HTTP/1.1 as the data plane's Vert.x client speaks it: binary mode, and header values as raw Latin-1 bytes.

No client from PyPI sends raw Latin-1: aiohttp writes UTF-8 and refuses some values, httpx writes ASCII. This client
knows one plain-text address, follows no redirect, and keeps its connections.

In a cluster, Envoy stands in front of every Knative Service. It answers 431 to a request with more than 100 headers
(`max_headers_count` of `core.v3.HttpProtocolOptions`), and Kourier and Istio leave this default. So a destination here
answers 431 too, and the function never sees the request.
"""

import asyncio
import re
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from dev.kafka_source.event import SinkResponse, SourceEvent
from dev.kafka_source.java import header_bytes

MAX_HEADERS = 100
"""Envoy's default limit."""

_USER_AGENT = "Vert.x-WebClient/4.5.21"
_HEADER_LINE = re.compile(rb"\r\n(?![ \t])")
_READ_BYTES = 65_536
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Destination:
    """The address of a sink, and its idle connections.

    A request fails after `timeout` seconds. The answer to a request with more than `max_headers` headers is 431.
    """

    def __init__(self, url: str, namespace: str, timeout: float, max_headers: int = MAX_HEADERS) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"the sink {url!r} is not an http:// URL")
        self.url = url
        self.timeout = timeout
        self._max_headers = max_headers
        self._address = (parts.hostname, parts.port or 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = f"POST {target} HTTP/1.1\r\nPrefer: reply\r\nKn-Namespace: {namespace}\r\n"
        self._head = f"{head}user-agent: {_USER_AGENT}\r\nhost: {parts.netloc}\r\n".encode("latin-1")
        self._idle: list[_Connection] = []

    def request(self, event: SourceEvent) -> bytes:
        """Return the request that carries this event. Raises `RefusedByVertx`."""
        lines = [self._head]
        for name, value in event.attributes.items():
            header = "content-type" if name == "datacontenttype" else f"ce-{name}"
            lines.append(b"%s: %s\r\n" % (header.encode("ascii"), header_bytes(value)))
        if event.data is not None:
            lines.append(b"content-length: %d\r\n" % len(event.data))
        if event.trace is not None:
            lines += [b"%s: %s\r\n" % (name.encode(), header_bytes(value)) for name, value in event.trace.headers()]
        return b"".join([*lines, b"\r\n", event.data or b""])

    async def post(self, request: bytes) -> SinkResponse:
        """Send the request and return the answer. Raises `OSError`; `TimeoutError` is a subclass."""
        if number_of_headers(request) > self._max_headers:
            return SinkResponse(431, [("server", "envoy")], b"")
        async with asyncio.timeout(self.timeout):
            reader, writer = await self._connection()
            answer = _Answer()
            try:
                writer.write(request)
                await answer.read_from(reader)
            finally:
                if answer.keeps_connection:
                    self._idle.append((reader, writer))
                else:
                    writer.transport.abort()
            return answer.response()

    async def _connection(self) -> _Connection:
        """Take an idle connection that the sink has not closed, or open a connection."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or reader.exception() or writer.is_closing()):
                return reader, writer
            writer.close()  # the sink has ended or reset the connection
        return await asyncio.open_connection(*self._address)


def number_of_headers(request: bytes) -> int:
    """Return the number of headers of a request. The lines of a folded value are one header."""
    head = request[: request.index(b"\r\n\r\n")]
    return len(_HEADER_LINE.findall(head))


class _Answer:
    """An answer while it arrives. The parser calls the methods whose names begin with `on_`."""

    def __init__(self) -> None:
        self.keeps_connection = False
        self._parser = HttpResponseParser(self)
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._has_head = self._is_complete = False

    async def read_from(self, reader: asyncio.StreamReader) -> None:
        """Read the answer. The end of the connection is the end of an answer without a length."""
        while not self._is_complete and (data := await reader.read(_READ_BYTES)):
            try:
                self._parser.feed_data(data)
            except HttpParserError as error:
                raise ConnectionError(f"the answer is not HTTP: {error}") from error
        if not self._has_head:
            raise ConnectionResetError("the sink closed the connection before its answer")

    def response(self) -> SinkResponse:
        """Return the whole answer."""
        return SinkResponse(self._parser.get_status_code(), self._headers, bytes(self._body))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        self._is_complete = True
        self.keeps_connection = self._parser.should_keep_alive()
