"""The rules of KafkaSource for records, for failed deliveries, and for offsets."""

import asyncio
import base64
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from dev.kafka_source.consumer import SourceConsumer, SourceSettings
from dev.kafka_source.delivery import Deliverer
from dev.kafka_source.event import (
    NeverFinishes,
    SinkResponse,
    SourceEvent,
    SourceName,
    dead_letter,
    has_null_header,
    to_event,
)
from dev.kafka_source.http import Destination
from dev.kafka_source.java import RefusedByVertx, header_bytes, java_accepts_uri, java_time
from dev.kafka_source.rules import BackoffPolicy, OffsetTracker, RecordRate, Retries, is_retried, is_success, retries
from tests.java import generated, java_says

pytestmark = pytest.mark.dev

SOURCE = SourceName("local", "events")
EVENT_HEADERS = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))


@dataclass
class FakeRecord:
    """A record as kafka-python gives it."""

    value: bytes | None = b"{}"
    headers: Sequence[tuple[str, bytes | None]] = field(default=EVENT_HEADERS)
    key: bytes | None = None
    topic: str = "topic"
    partition: int = 3
    offset: int = 7
    timestamp: int = 1_700_000_000_120


def binary(*headers: tuple[str, str], value: bytes | None = b"{}") -> SourceEvent:
    """Return the event of a record with the four required headers and `headers`."""
    encoded = [(name, text.encode()) for name, text in headers]
    return to_event(FakeRecord(headers=[*EVENT_HEADERS, *encoded], value=value), SOURCE)


def structured(content_type: str = "application/cloudevents+json", /, **members: object) -> SourceEvent:
    """Return the event of a record in structured mode."""
    value = json.dumps({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **members}).encode()
    return to_event(FakeRecord(headers=[("content-type", content_type.encode())], value=value), SOURCE)


def is_plain(event: SourceEvent) -> bool:
    return event.attributes["type"] == "dev.knative.kafka.event"


def test_a_binary_event_keeps_its_attributes_and_gets_its_position() -> None:
    event = binary(("ce_subject", "a b"), ("ce_Custom", "x"), ("content-type", "text/plain"), ("other", "no"))
    assert event.attributes == {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "subject": "a b",
        "custom": "x",
        "datacontenttype": "text/plain",
        "knativekafkapartition": "3",
        "knativekafkaoffset": "7",
    }
    assert event.data == b"{}"


def test_the_key_is_not_added_to_an_event() -> None:
    assert to_event(FakeRecord(key=b"k"), SOURCE).attributes.keys() == binary().attributes.keys()


def test_a_plain_record_becomes_an_event_of_the_source() -> None:
    """Its headers and its key become extensions. Its content type becomes `datacontenttype`, in lower case."""
    headers = [("Content-Type", b"Text/PLAIN"), ("X-Tag_1", "ö".encode())]
    event = to_event(FakeRecord(headers=headers, key=b"k", value=b"v"), SOURCE)
    assert event.attributes == {
        "specversion": "1.0",
        "id": "partition:3/offset:7",
        "source": "/apis/v1/namespaces/local/kafkasources/events#topic",
        "type": "dev.knative.kafka.event",
        "subject": "partition:3#7",
        "time": "2023-11-14T22:13:20.12Z",
        "partitionkey": "k",
        "key": "k",
        "datacontenttype": "text/plain",
        "kafkaheaderxtag1": "ö",
        "knativekafkapartition": "3",
        "knativekafkaoffset": "7",
    }
    assert event.data == b"v"


@pytest.mark.parametrize("missing", ["ce_specversion", "ce_id", "ce_source", "ce_type"])
def test_a_missing_attribute_makes_it_plain(missing: str) -> None:
    headers = [header for header in EVENT_HEADERS if header[0] != missing]
    assert is_plain(to_event(FakeRecord(headers=headers), SOURCE))


@pytest.mark.parametrize(
    "header",
    [
        ("ce_source", "a b"),
        ("ce_dataschema", "http://"),
        ("ce_time", "yesterday"),
        ("ce_a-b", "x"),
        ("ce_specversion", "2.0"),
        ("content-type", "application/cloudevents-batch+json"),
    ],
)
def test_an_attribute_that_the_java_sdk_refuses_makes_it_plain(header: tuple[str, str]) -> None:
    assert is_plain(binary(header))


def test_time_is_written_again() -> None:
    assert binary(("ce_time", "2024-01-01T00:00:00.100+00:00")).attributes["time"] == "2024-01-01T00:00:00.1Z"


def test_a_structured_event_keeps_its_attributes() -> None:
    event = structured(subject="s", number=-5, flag=True, nothing=None, data={"ü": [1, 2.5]}, time=None)
    assert event.attributes["subject"] == "s"
    assert (event.attributes["number"], event.attributes["flag"]) == ("-5", "true")
    assert event.attributes["nothing"] == "null"
    assert event.attributes["datacontenttype"] == "application/json"
    assert "time" not in event.attributes
    assert event.data == '{"ü":[1,2.5]}'.encode()


def test_structured_data_in_base64_and_as_text() -> None:
    assert structured(data_base64=base64.b64encode(b"\x00\xff").decode()).data == b"\x00\xff"
    assert structured(data="text", datacontenttype="text/plain").data == b"text"
    assert structured("application/cloudevents+json; charset=UTF-8").data is None


@pytest.mark.parametrize(
    "members",
    [
        {"id": 1},
        {"id": None},
        {"source": "a b"},
        {"number": 2**31},
        {"number": 1.5},
        {"data": 1, "data_base64": ""},
        {"data_base64": "?"},
        {"data": {}, "datacontenttype": "text/plain"},
        {"specversion": "9"},
    ],
)
def test_a_wrong_structured_event_is_plain(members: dict[str, object]) -> None:
    assert is_plain(structured("application/cloudevents+json", **members))


@pytest.mark.parametrize("value", [b"", b"[]", b"{", b'{"a": NaN}', None])
def test_a_structured_record_without_an_object_is_plain(value: bytes | None) -> None:
    headers = [("content-type", b"application/cloudevents+json")]
    assert is_plain(to_event(FakeRecord(headers=headers, value=value), SOURCE))


def test_application_json_is_no_structured_event() -> None:
    """A record from `to_structured` of cloudevents 1.12.0 is a plain record for KafkaSource."""
    assert is_plain(structured("application/json"))


@given(st.dictionaries(st.text(max_size=8), st.binary(max_size=8)), st.none() | st.binary(), st.none() | st.binary())
def test_every_record_becomes_an_event(headers: dict[str, bytes], value: bytes | None, key: bytes | None) -> None:
    for start in ((), EVENT_HEADERS):
        event = to_event(FakeRecord(headers=[*start, *headers.items()], value=value, key=key), SOURCE)
        assert {"specversion", "id", "source", "type", "knativekafkaoffset"} <= event.attributes.keys()


def test_a_null_header_is_seen() -> None:
    assert has_null_header(FakeRecord(headers=[("a", b""), ("b", None)]))
    assert not has_null_header(FakeRecord(headers=[("a", b"")]))


async def test_a_null_header_loses_the_batch_of_its_partition() -> None:
    """The source may commit the offsets of the batch. kafka-python's producer cannot write a null header."""
    deliverer = Deliverer(Destination("http://sink/", "local", 1.0), None, retries())
    consumer = SourceConsumer(SourceSettings("broker:9092", "topic", "group", SOURCE, "earliest"), deliverer)
    partition = TopicPartition("topic", 3)
    consumer._take(partition, [FakeRecord(offset=5), FakeRecord(offset=6, headers=[("x", None)]), FakeRecord(offset=7)])
    await asyncio.sleep(0)
    assert (deliverer.counts.lost, consumer._trackers[partition].to_commit()) == (3, 8)
    assert [lane.backlog for lane in consumer._lanes.values()] == [0]
    await consumer.close(grace=1.0)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")))
def test_header_values_up_to_ff_are_written_as_they_are(value: str) -> None:
    assert header_bytes(value) == value.encode("latin-1")


def test_header_values_beyond_ff_are_damaged() -> None:
    assert header_bytes(" 100% é€\U0001f600\t") == b" 100% \xe9???\t"


@pytest.mark.parametrize("value", ["\x00", "a\x1fb", "\x7f", "a\nb", "a\r\nb", "a\r", "a\n", "\x0b"])
def test_a_control_character_is_refused(value: str) -> None:
    with pytest.raises(RefusedByVertx):
        header_bytes(value)


def test_the_request_is_binary_mode() -> None:
    destination = Destination("http://sink.example:8080/path?query", "local", 1.0)
    request = destination.request(SourceEvent({"specversion": "1.0", "id": "é", "datacontenttype": "a/b"}, b"data"))
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /path?query HTTP/1.1",
        b"Prefer: reply",
        b"Kn-Namespace: local",
        b"user-agent: Vert.x-WebClient/4.5.21",
        b"host: sink.example:8080",
        b"ce-specversion: 1.0",
        b"ce-id: \xe9",
        b"content-type: a/b",
        b"content-length: 4",
    ]
    assert body == b"data"


def test_some_statuses_are_retried() -> None:
    retried = {status for status in range(300, 600) if is_retried(status)}
    assert retried == {404, 408, 409, 429, *range(500, 600)}
    assert [is_success(status) for status in (200, 202, 299, 300, 503)] == [True, True, True, False, False]


def test_back_off_grows_without_a_cap() -> None:
    exponential = Retries(10, BackoffPolicy.EXPONENTIAL, 0.3, 1.0)
    linear = Retries(10, BackoffPolicy.LINEAR, 0.3, 1.0)
    assert [exponential.delay_before(n) for n in (1, 2, 10)] == pytest.approx([0.6, 1.2, 307.2])
    assert [linear.delay_before(n) for n in (1, 2, 10)] == pytest.approx([0.3, 0.6, 3.0])


def test_defaults_of_delivery() -> None:
    """Without `delivery` there are 10 retries. A `delivery` without `retry` has no retries."""
    assert retries() == Retries(10, BackoffPolicy.EXPONENTIAL, 0.3, 600.0)
    assert retries(timeout=5.0).retry == 0
    assert retries(3, delay=0.0).retry == retries(3).retry == 0
    assert retries(dead_letters=True).retry == 0
    assert retries(3, BackoffPolicy.LINEAR, 0.1, 5.0) == Retries(3, BackoffPolicy.LINEAR, 0.1, 5.0)


def test_a_dead_letter_carries_the_failure() -> None:
    response = SinkResponse(422, [("KNE-Reason", "bad"), ("other", "x")], b"b" * 2000)
    kept = dead_letter(binary(), "http://sink/", response)
    assert kept.attributes == {
        **binary().attributes,
        "knativeerrordest": "http://sink/",
        "knativeerrorcode": "422",
        "knativeerrordata": base64.b64encode(b"b" * 1024).decode(),
        "reason": "bad",
    }
    assert kept.data == binary().data


def test_a_dead_letter_after_a_time_out_has_no_code() -> None:
    kept = dead_letter(binary(), "http://sink/", None)
    assert kept.attributes == {**binary().attributes, "knativeerrordest": "http://sink/"}
    assert "knativeerrordata" not in dead_letter(binary(), "http://sink/", SinkResponse(500, [], b"")).attributes


def test_an_error_header_with_a_dash_hangs_the_event() -> None:
    with pytest.raises(NeverFinishes):
        dead_letter(binary(), "http://sink/", SinkResponse(500, [("Kne-Error-Code", "x")], b""))


@pytest.mark.fault("D6")
@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 50)), max_size=50))
def test_the_rate_is_never_exceeded(steps: list[tuple[float, int]]) -> None:
    """In any time, at most the rate, a burst of 0.1 s, and one batch start."""
    rate, now, started = RecordRate(100.0), 1000.0, 0
    for pause, batch in steps:
        now += pause
        now += rate.wait(now)
        assert rate.wait(now) < 1e-6
        rate.started(batch)
        started += batch
        assert started <= (now - 1000.0) * 100.0 + 10 + batch + 1e-3


@given(st.permutations(range(8)), st.integers(0, 7))
def test_only_contiguous_offsets_are_committed(order: Sequence[int], finished: int) -> None:
    tracker = OffsetTracker(100)
    for offset in range(8):
        tracker.received(100 + offset)
    done = order[:finished]
    for offset in done:
        tracker.finished(100 + offset)
    end = next(offset for offset in range(9) if offset not in done)
    assert tracker.to_commit() == (100 + end if end else None)


def test_offsets_that_the_log_skips_are_finished() -> None:
    """Compaction and transaction markers leave gaps. The source must commit beyond a gap."""
    tracker = OffsetTracker(5)
    for offset in (5, 9):
        tracker.received(offset)
        tracker.finished(offset)
    assert tracker.to_commit() == 10
    tracker.committed(10)
    assert tracker.to_commit() is None


URIS = {
    "": True,
    "/s": True,
    "urn:": False,
    "urn:#f": False,
    "urn:a[b]": True,
    "http://": False,
    "http:///path": True,
    "//?q": True,
    "//": False,
    "a b": False,
    "ä€": True,
    "a\u00a0b": False,
    "%zz": False,
    "%41": True,
    "/p[1]": False,
    "?q[1]": True,
    "1a:b": False,
    ":b": False,
    "a/b:c": True,
    "http://u@[::1]:80/x": True,
    "http://[::1%eth0]": True,
    "http://[::g]": False,
    "a\\b": False,
    "#a#b": False,
}


@pytest.mark.parametrize(("value", "accepted"), URIS.items())
def test_uris_for_java(value: str, accepted: bool) -> None:
    assert java_accepts_uri(value) is accepted


@pytest.mark.java
def test_uris_are_judged_as_java_judges_them() -> None:
    characters = [*string.printable, *"äß€\x7f\x80\x85\xa0\xa1\u1680\u2028\u202f\u3000\u200b\U0001f600"]
    likely = [
        "http:",
        "urn:",
        "//",
        "/",
        "[::1]",
        "[1::2%e0]",
        "[::ffff:1.2.3.4]",
        "%41",
        "%",
        ":",
        "#",
        "?",
        "@",
        "80",
    ]
    odd = ["[", "]", "[::", "99999999999", "a", "1.2.3.4", "a.b", "[1:2:3:4:5:6:7:8]", "[1.2.3.4]", "%zz"]
    values = [*URIS, *generated(likely * 8 + odd * 4 + characters, 7), *generated(likely + odd, 7)]
    wrong = [
        v for v, answer in zip(values, java_says("uri", values), strict=True) if answer != str(java_accepts_uri(v))
    ]
    assert wrong == []


@pytest.mark.java
def test_times_are_written_as_java_writes_them() -> None:
    dates = ["2024-02-29", "2023-02-29", "2024-04-31", "0000-12-31", "-0001-01-01", "+2024-01-01", "-0000-01-01"]
    dates += ["+12024-01-01", "12024-01-01", "+02024-01-01", "2024-13-01", "2024-00-10", "2024-1-01", "-12024-02-29"]
    dates += ["-00001-01-01", "-00000-01-01"]
    times = ["00:00:00", "23:59:59", "24:00:00", "10:20", "10", "23:59:60", "1:02:03", "10:20:30."]
    times += [f"10:20:30.{fraction}" for fraction in ("0", "100", "123456789", "1234567890", "000000001")]
    zones = ["Z", "z", "", "+00:00", "-00:00", "+02", "+0200", "+02:00", "-18:00", "+18:00:01", "+18:01", "+19:00"]
    zones += ["+2", "+02:00:30", "+02:60", " Z", "[UTC]", "-00:00:01", "+020030"]
    values = [f"{d}{t}{time}{z}" for d in dates for t in ("T", "t", " ") for time in times for z in zones]
    wrong = [v for v, answer in zip(values, java_says("time", values), strict=True) if answer != str(java_time(v))]
    assert wrong == []
