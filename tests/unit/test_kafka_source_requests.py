"""The stand-in makes the requests of the real KafkaSource from the same records, apart from the order of headers."""

import asyncio
import base64
import gc
import re
import socket
import struct
from collections import Counter
from dataclasses import replace
from datetime import datetime

import pytest

from dev.kafka_source.event import SinkResponse, SourceEvent, SourceName, dead_letter, to_event
from dev.kafka_source.http import Destination, number_of_headers
from dev.kafka_source.tracing import TraceMemory
from tests.captured import CAPTURED, DEAD_LETTERS, EVENTS, Captured
from tests.carried import FakeRecord

pytestmark = [pytest.mark.dev, pytest.mark.fault("D6")]

SOURCE = SourceName("twofold", "store")
SPAN = re.compile(rb"(?<=traceparent: 00-[0-9a-f]{32}-)[0-9a-f]{16}")
EARLIER = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
"""The trace of the record before 14-alien-traceparent."""


def lines(request: bytes) -> tuple[bytes, Counter[bytes], bytes]:
    """Return the request line, the headers in any order, and the body. Span ids are masked."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = SPAN.sub(b"<span>", head).split(b"\r\n")
    return first, Counter(headers), body


def destination(captured: Captured) -> Destination:
    return Destination(f"http://{captured.headers['host'].decode()}/", "twofold", 1.0)


def milliseconds(time: bytes) -> int:
    return round(datetime.fromisoformat(time.decode()).timestamp() * 1000)


def made(captured: Captured, record: FakeRecord) -> bytes:
    """Return the stand-in's request. A record without a time in the index has the time of its request."""
    record = replace(record, timestamp=record.timestamp or milliseconds(captured.headers["ce-time"]))
    traces = TraceMemory()
    if captured.name == "14-alien-traceparent":
        traces.of(EARLIER)
    event = replace(to_event(record, SOURCE), trace=traces.of(record.headers))
    return destination(captured).request(event)


@pytest.mark.parametrize("captured", EVENTS, ids=str)
def test_a_record_becomes_the_real_request(captured: Captured) -> None:
    assert captured.record is not None
    if "ce-time" not in captured.headers:
        captured.record.timestamp = 1
    assert lines(made(captured, captured.record)) == lines(captured.request)


@pytest.mark.parametrize("captured", DEAD_LETTERS, ids=str)
def test_a_failure_becomes_the_real_request_to_the_dead_letter_sink(captured: Captured) -> None:
    headers = {name: value.decode("latin-1") for name, value in captured.headers.items()}
    error = {name: headers.pop(f"ce-{name}", None) for name in ("knativeerrordest", "knativeerrorcode")}
    body = base64.b64decode(headers.pop("ce-knativeerrordata", ""))
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    event = SourceEvent(attributes | {"datacontenttype": headers["content-type"]}, captured.parsed.body)
    code = error["knativeerrorcode"]
    response = SinkResponse(int(code), [], body) if code else None
    kept = dead_letter(event, error["knativeerrordest"] or "", response)
    assert lines(destination(captured).request(kept)) == lines(captured.request)


def test_each_request_has_a_span_of_its_own() -> None:
    event = SourceEvent({"id": "1"}, b"", TraceMemory().of(EARLIER))
    sink = Destination("http://sink/", "twofold", 1.0)
    assert sink.request(event) != sink.request(event)
    assert lines(sink.request(event)) == lines(sink.request(event))


@pytest.mark.parametrize("value", [b"", b"00-0-0-01", b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
def test_an_invalid_trace_is_no_trace(value: bytes) -> None:
    assert TraceMemory().of([("traceparent", value), ("tracestate", b"a=b")]) is None


@pytest.mark.fault("D4")
def test_with_the_label_of_the_manifest_a_binary_key_makes_a_valid_request() -> None:
    """A control character in a key would end the request, all its retries, and those of the dead-letter sink."""
    record = FakeRecord(b"\x00\x01\xff", b"x", [])
    labelled = to_event(record, SOURCE._replace(key_type="byte-array"))
    assert labelled.attributes["key"] == labelled.attributes["partitionkey"] == "AAH/"
    assert b"ce-key: AAH/\r\n" in Destination("http://sink/", "twofold", 1.0).request(labelled)


@pytest.mark.fault("B1")
async def test_envoy_in_front_of_the_sink_refuses_more_than_100_headers() -> None:
    """KafkaSource does not retry 431. No server is at the address: a request that passes would fail."""
    sink = Destination("http://127.0.0.1:9/", "twofold", 1.0)
    event = SourceEvent({f"x{number}": "1" for number in range(95)}, b"")
    request = sink.request(event)
    assert number_of_headers(request) == 100
    with pytest.raises(OSError):  # noqa: PT011  # refused, or no route
        await sink.post(request)
    request = sink.request(replace(event, attributes={**event.attributes, "x": "1"}))
    assert (await sink.post(request)).status == 431


@pytest.mark.fault("B1")
def test_the_lines_of_a_folded_value_are_one_header() -> None:
    assert number_of_headers(b"POST / HTTP/1.1\r\na: 1\r\n 2\r\n\t3\r\nb: 4\r\n\r\n") == 2


def test_there_are_20_requests() -> None:
    assert (len(CAPTURED), len(EVENTS), len(DEAD_LETTERS)) == (20, 18, 2)


@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
async def test_an_idle_connection_that_the_sink_closed_is_not_used_again(*, reset: bool) -> None:
    """A sink closes idle connections. No event is sent on such a connection, and no socket stays open."""
    closed = asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        if reset:  # a close without lingering sends RST in place of FIN
            lingering = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        writer.close()
        closed.release()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        sink = Destination(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "twofold", 5.0)
        for _ in range(3):
            assert (await sink.post(sink.request(SourceEvent({"id": "1"}, None)))).status == 200
            await closed.acquire()
            await asyncio.sleep(0.05)
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await sink.post(sink.request(SourceEvent({"id": "1"}, None)))
    await asyncio.sleep(0)
    del sink
    gc.collect()  # a connection that nobody closed is a ResourceWarning here
