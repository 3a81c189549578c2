"""A `source` travels in its Kafka header only if KafkaSource's Java takes it. Another source travels beside it.

`dev/kafka_source/java.py` has Java's rules, and Java itself judges them where it is found.
"""

import string
from collections.abc import Iterable
from typing import Any

import pytest

from dev.kafka_source.java import java_accepts_uri
from tests.carried import through_kafka_source
from tests.cloud_events import structured
from tests.equal_events import differences, of_cloud_event, of_document
from tests.java import generated, java_says
from tests.strategies import NOW
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.errors import Rejected
from twofold.event.attribute import is_java_uri

pytestmark = pytest.mark.guarantee("R5", "R26")

ALLOWED = {
    "?x": True,
    "#f": True,
    "?q=1#f": True,
    "/s": True,
    "a/b:c": True,
    "a:b": True,
    "urn:x": True,
    "urn:": False,
    "urn:#f": False,
    "//": False,
    "//?q": True,
    "http://": False,
    "http:///p": True,
    "crn:///kafka=cluster-1": True,
    "kafka://broker-1:9092,broker-2:9092/orders": True,
    "http://h:/p": True,
    "http://h:99999999999": True,
    "http://[::1]:80/x": True,
    "http://[::1]:99999999999/x": False,
    "http://[v1.a:b]/": False,
    "http://u:p@h/": True,
    "http://u:p@[::1]/": True,
    "/%41%2f": True,
    "mailto:a@b": True,
    "//a..b//c": True,
    ".": True,
    "..": True,
    "!$&'()*+,;=": True,
}
"""URI references that RFC 3986 allows, and the decision of Java."""

FORBIDDEN = [
    "",
    "a b",
    "/ä",
    "%zz",
    "/p[1]",
    "1a:b",
    ":b",
    "a\\b",
    "#a#b",
    "http://[::g]",
    "<x>",
    "/{id}",
    "?q[1]",
    "^",
    "`",
    "|",
]
"""No URI references of RFC 3986. Java takes some of these."""

_LIKELY = [
    "http:",
    "urn:",
    "//",
    "/",
    "[::1]",
    "[::ffff:1.2.3.4]",
    "%41",
    ":",
    "#",
    "?",
    "@",
    "80",
    "a",
    "1.2.3.4",
    "a.b",
    "-",
]
_ODD = [
    "[",
    "]",
    "[::",
    "99999999999",
    "[1:2:3:4:5:6:7:8]",
    "[1.2.3.4]",
    "[v1.x]",
    "%",
    "%zz",
    "+",
    "=",
    "~",
    "_",
    "&",
    ",",
    ";",
]
GENERATED = [*generated(_LIKELY * 6 + _ODD * 2 + [*string.printable], 7), *generated(_LIKELY + _ODD, 6)]


def read(source: str) -> IncomingEvent | None:
    """Return the event with this source. None: Twofold refuses the source."""
    event = {"specversion": "1.0", "id": "1", "type": "t", "source": source, "dataschema": source}
    try:
        incoming = decode_http(*structured(event), NOW, 1)
    except Rejected:
        return None
    assert isinstance(incoming, IncomingEvent)
    incoming.encoded.set_order(1)
    return incoming


def travelling(values: Iterable[str]) -> list[str]:
    """Return the values that travel in the header unchanged, as the product decides."""
    return [value for value in values if is_java_uri(value)]


@pytest.mark.parametrize("source", ALLOWED)
def test_a_uri_reference_arrives_unchanged(source: str) -> None:
    """The record has a source that Java takes, because another source would make it a plain record."""
    expected: dict[str, Any] = {"specversion": "1.0", "id": "1", "type": "t", "source": source, "dataschema": source}
    incoming = read(source)
    assert incoming is not None
    record = incoming.encoded.record()
    headers = dict(record.headers)
    assert java_accepts_uri(headers["ce_source"].decode())
    assert java_accepts_uri(headers["ce_dataschema"].decode())
    delivered = decode_kafka(*through_kafka_source(record))
    assert differences(of_cloud_event(expected), of_document(delivered.document)) == []


@pytest.mark.parametrize("source", FORBIDDEN)
def test_another_text_is_refused(source: str) -> None:
    assert read(source) is None


def test_a_source_that_java_refuses_does_not_travel_as_it_is() -> None:
    assert [value for value in travelling([*ALLOWED, *FORBIDDEN, *GENERATED]) if not java_accepts_uri(value)] == []


def test_the_usual_sources_travel_as_they_are() -> None:
    """A source beside its header costs bytes and time, so it is the exception."""
    usual = ["/s", "urn:x", "https://shop.example/orders?x=%20y#z", "a/b", "https://10.0.0.1:443", "https://[::1]/x"]
    assert travelling(usual) == usual


def test_every_accepted_source_gets_a_header_that_java_takes() -> None:
    """Some hundred generated references are accepted."""
    accepted = [incoming for value in GENERATED[::40] if (incoming := read(value)) is not None]
    assert len(accepted) > 100
    sources = [dict(incoming.encoded.record().headers)["ce_source"].decode() for incoming in accepted]
    assert [source for source in sources if not java_accepts_uri(source)] == []


@pytest.mark.java
def test_java_itself_decides_as_the_table_says() -> None:
    assert dict(zip(ALLOWED, java_says("uri", [*ALLOWED]), strict=True)) == {k: str(v) for k, v in ALLOWED.items()}


@pytest.mark.java
def test_java_itself_takes_every_source_that_travels_as_it_is() -> None:
    values = travelling([*ALLOWED, *FORBIDDEN, *GENERATED])
    assert len(values) > 1000
    refused = [value for value, answer in zip(values, java_says("uri", values), strict=True) if answer != "True"]
    assert refused == []
