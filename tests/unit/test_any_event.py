"""Any CloudEvent is taken, and comes back equal after each hop. The judge is `tests/equal_events.py`."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.any_events import any_events
from tests.carried import through_kafka_source
from tests.cloud_events import FIXTURES, Fixture, Request, binary, structured
from tests.equal_events import differences, of_cloud_event, of_document, of_reader, of_record
from tests.strategies import NOW
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.cloudevents.encode import EncodedEvent, KafkaRecord
from twofold.errors import Rejected
from twofold.event.model import Event
from twofold.event.sealed import check_not_sealed
from twofold.mongo.documents import decode_document
from twofold.read.models import EventOut, one_line_json
from twofold.storage.events import EventRepository

pytestmark = pytest.mark.guarantee("R5", "R26")

ORDER = 1 << 60
"""The `order` that a publisher would set."""


def incoming(request: Request) -> EncodedEvent:
    """Return the event of a producer's request."""
    decoded = decode_http(*request, NOW, 1000)
    assert isinstance(decoded, IncomingEvent)
    decoded.encoded.set_order(ORDER)
    check_not_sealed(decoded.encoded.document.get("payload"), decoded.encoded.data.data)  # as `Publisher` does
    return decoded.encoded


def event_of(document: dict[str, Any]) -> Event:
    """Return the event of a stored document."""
    return Event.from_document(document)


def shown(document: dict[str, Any]) -> Any:
    """Return the JSON of a reader for the stored document."""
    stored = EventRepository.encode(document, NOW)
    return json.loads(one_line_json(EventOut.of(stored)))


def bsons(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document as MongoDB gives it back. pymongo's own decoder would make a DBRef of `{"$ref", "$id"}`."""
    return decode_document(EventRepository.encode(document, NOW))


def check_every_hop(expected: dict[str, Any], request: Request) -> EncodedEvent:
    """Send a request through every hop. Assert that each hop keeps the event."""
    wanted = of_cloud_event(expected)
    encoded = incoming(request)
    assert differences(wanted, of_document(encoded.document)) == []
    assert differences(wanted, of_document(bsons(encoded.document))) == []
    assert differences(wanted, of_reader(shown(encoded.document))) == []
    record: KafkaRecord = encoded.record()
    assert differences(wanted, of_record(record.headers, record.value)) == []
    delivered = decode_kafka(*through_kafka_source(record))
    assert differences(wanted, of_document(delivered.document)) == []
    assert delivered.digest == encoded.digest
    again = event_of(bsons(delivered.document)).to_document()
    assert differences(wanted, of_document(again)) == []
    assert again["digest"] == encoded.digest
    return encoded


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
def test_a_fixture_is_read_as_its_event_and_passes_every_hop(fixture: Fixture) -> None:
    """Each event comes in the fixture's own request, and in the modes that can carry it. Each mode gives one digest."""
    if fixture.is_kafka:
        record = KafkaRecord(b"", fixture.body, [(name, value.encode()) for name, value in fixture.headers.items()])
        request = through_kafka_source(record)
    else:
        request = fixture.request
    if fixture.mode == "batch":
        assert len(fixture.events) == len(json.loads(fixture.body))
    else:
        (event,) = fixture.events
        own = check_every_hop(event, request)
        assert all(other.digest == own.digest for other in _other_modes(event))
    for event in fixture.events:
        assert len({encoded.digest for encoded in _other_modes(event)}) == 1


def _other_modes(event: dict[str, Any]) -> list[EncodedEvent]:
    requests = [structured(event), binary(event)]
    return [check_every_hop(event, request) for request in requests if request is not None]


@settings(max_examples=300, deadline=None)
@given(any_events())
@example({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": {"$ref": "c", "$id": 1}}})
@example({"specversion": "1.0", "id": " ", "source": "?", "type": " ", "subject": "\u00a0", "x": ""})
@example({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-07-01t12:00:00.1234500z"})
def test_an_event_of_any_kind_is_equal_after_every_hop(event: dict[str, Any]) -> None:
    """Both modes of HTTP, BSON, a reader's JSON, a record, and a real KafkaSource's request keep the event."""
    from_json = check_every_hop(event, structured(event))
    request = binary(event)
    if request is not None:
        assert check_every_hop(event, request).digest == from_json.digest


_CHARACTERS = [
    chr(plane * 0x10000 + offset)
    for plane in range(17)
    for offset in (0x21, 0x80 + 0x21, 0x4E00, 0xE000, 0xFFFD)
    if not 0xD800 <= plane * 0x10000 + offset <= 0xDFFF
]
_OF_TEXT = ["id", "type", "subject", "tenant", "correlationid", "eventversion", "tracestate"]


@pytest.mark.parametrize("name", _OF_TEXT)
def test_every_plane_of_unicode_travels_in_every_attribute(name: str) -> None:
    """All planes stand in a value together, and a character of each plane stands alone."""
    for value in ("".join(_CHARACTERS), *_CHARACTERS):
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", name: value}
        check_every_hop(event, structured(event))
        request = binary(event)
        assert request is not None
        check_every_hop(event, request)


# --- identity and hops -----------------------------------------------------------------------------------------------

EVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}}


def encoded(**changes: Any) -> EncodedEvent:
    return incoming(structured(EVENT | changes))


def test_the_identity_is_made_of_source_and_id() -> None:
    """A UUID alone decides nothing. The lengths of both count: no two pairs join to one text."""
    uuid = "04d54c55-27cf-422b-802d-af5e999c9395"
    pairs = [
        ("/s", "1"),
        ("/S", "1"),
        ("/s", uuid),
        ("/t", uuid),
        ("/s", "11"),
        ("/s1", "1"),
        ("/", "s1"),
        ("/s", "\u00e9"),
    ]
    ids = {encoded(source=source, id=id_).event_id for source, id_ in pairs}
    assert len(ids) == len(pairs)
    assert {event_id.version for event_id in ids} == {8}
    assert encoded().event_id == encoded(data=[2], type="u").event_id


def test_the_identity_keeps_the_time_of_a_uuid_of_version_7() -> None:
    given_id = "01996f2e-0000-7abc-8def-0123456789ab"
    assert str(encoded(id=given_id).event_id).startswith("01996f2e-0000-8")
    assert encoded(id=given_id).event_id != encoded(id=given_id, source="/t").event_id


@given(st.text("ab/1", min_size=1, max_size=4), st.text("ab/1", min_size=1, max_size=4))
def test_another_pair_has_another_identity(source: str, id_: str) -> None:
    pair = encoded(source="/" + source, id=id_)
    joined = ("/" + source) + id_
    for cut in range(1, len(joined)):
        if cut != len(source) + 1:
            other = incoming(structured(EVENT | {"source": joined[:cut], "id": joined[cut:]}))
            assert other.event_id != pair.event_id


@pytest.mark.parametrize(
    "name", ["traceparent", "tracestate", "baggage", "knativearrivaltime", "knativebrokerttl", "knativehistory"]
)
def test_a_hop_does_not_change_the_digest(name: str) -> None:
    first, second = encoded(**{name: "1"}), encoded(**{name: "2"})
    assert first.digest == second.digest == encoded().digest


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "2"},
        {"source": "/t"},
        {"type": "u"},
        {"subject": "s"},
        {"tenant": ""},
        {"time": "2026-01-01T00:00:00Z"},
        {"dataschema": "#"},
        {"datacontenttype": "text/json"},
        {"data": {"a": 1.0}},
        {"data": {"a": True}},
        {"data": None},
        {"data": "1"},
        {"data_base64": "eyJhIjoxfQ==", "data": None},
    ],
    ids=str,
)
def test_any_other_change_changes_the_digest(changes: dict[str, Any]) -> None:
    assert encoded(**changes).digest != encoded().digest


def test_finer_times_have_digests_of_their_own() -> None:
    """The same millisecond is another time if its original text differs."""
    times = ["2026-01-01T00:00:00.001Z", "2026-01-01T00:00:00.0011Z", "2026-01-01T00:00:00.0012Z"]
    assert len({encoded(time=time).digest for time in times}) == 3


def test_the_same_instant_in_another_text_is_the_same_time() -> None:
    """A hop or an SDK writes a time anew. Its instant stays, and the first text is kept."""
    texts = ["00:00:00.123456Z", "00:00:00.1234560+00:00", "02:00:00.123456+02:00", "00:00:00.12345600000z"]
    assert len({encoded(time=f"2026-01-01T{text}").digest for text in texts}) == 1
    leap = ["2016-12-31T23:59:60Z", "2017-01-01T00:59:60.0+01:00", "2016-12-31T23:59:59Z", "2016-12-31T23:59:60.1Z"]
    digests = [encoded(time=time).digest for time in leap]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


# --- refused ---------------------------------------------------------------------------------------------------------

_CONTROLS = [*map(chr, range(0x20)), "\x7f", *map(chr, range(0x80, 0xA0))]


@pytest.mark.guarantee("R3", "G4")
@pytest.mark.parametrize("name", ["id", "type", "subject", "tenant", "correlationid", "source"])
def test_a_control_character_is_refused(name: str) -> None:
    for control in _CONTROLS:
        with pytest.raises(Rejected) as refused:
            incoming(structured(EVENT | {name: f"a{control}b"}))
        assert refused.value.status in (400, 422)


REFUSED: dict[str, tuple[dict[str, Any], set[int]]] = {
    "empty id": ({"id": ""}, {400, 422}),
    "empty source": ({"source": ""}, {400, 422}),
    "empty type": ({"type": ""}, {400, 422}),
    "empty subject": ({"subject": ""}, {400, 422}),
    "empty time": ({"time": ""}, {400, 422}),
    "empty dataschema": ({"dataschema": ""}, {400, 422}),
    "no id": ({"id": None}, {400}),
    "source with a space": ({"source": "/a b"}, {422}),
    "source beyond ASCII": ({"source": "/ä"}, {422}),
    "source with a broken escape": ({"source": "/%zz"}, {422}),
    "source with a bracket": ({"source": "/[1]"}, {422}),
    "dataschema with a space": ({"dataschema": "a b"}, {422}),
    "object of a text type": ({"datacontenttype": "text/plain", "data": {}}, {422}),
    "number of a byte type": ({"datacontenttype": "image/png", "data": 1}, {422}),
    "data beside data_base64": ({"data": 1, "data_base64": "MQ=="}, {400, 422}),
    "no base64": ({"data": None, "data_base64": "*"}, {400, 422}),
    "base64 of no JSON": ({"data": None, "data_base64": "eyI=", "datacontenttype": "application/json"}, {400, 422}),
    "JSON in another charset": ({"datacontenttype": "application/json; charset=utf-16"}, {415}),
    "upper-case name": ({"Tenant": "x"}, {400, 422}),
    "name with a dash": ({"te-nant": "x"}, {400, 422}),
    "object as an attribute": ({"tenant": {}}, {422}),
    "fraction as an attribute": ({"tenant": 1.5}, {422}),
    "reserved attribute": ({"twofolddigest": "00"}, {400, 422}),
    "reserved order": ({"twofoldorder": "1"}, {400, 422}),
    "reserved exact": ({"twofoldexact": "e30"}, {400, 422}),
    "sealed string in the data": ({"data": {"a": ["sealed:v1:x"]}}, {422}),
    "sealed data": ({"data": "sealed:v1:x"}, {422}),
    "sealed attribute": ({"tenant": "sealed:v1:x"}, {422}),
    "integer beyond 64 bits": ({"data": [2**63]}, {422}),
    "minute that does not exist": ({"time": "2026-01-01T00:60:00Z"}, {422}),
    "other version": ({"specversion": "0.3"}, {400}),
}


@pytest.mark.guarantee("R3", "G4")
@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_event_is_refused(case: str) -> None:
    changes, statuses = REFUSED[case]
    with pytest.raises(Rejected) as refused:
        incoming(structured(EVENT | changes))
    assert refused.value.status in statuses


@pytest.mark.guarantee("R3")
def test_binary_mode_refuses_an_escape_that_is_no_utf_8() -> None:
    headers = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
    for value in (b"%FF", b"%C3", b"%ED%A0%80"):
        with pytest.raises(Rejected):
            incoming(([*headers, (b"ce-tenant", value)], b""))


def test_binary_mode_reads_raw_header_bytes_as_utf_8_or_latin_1() -> None:
    """Some producers write characters without escapes."""
    headers = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
    for raw in ("é€", "é"):
        read = incoming(([*headers, (b"ce-tenant", raw.encode())], b""))
        assert read.document["metadata"]["extensions"]["tenant"] == raw
    read = incoming(([*headers, (b"ce-tenant", b"caf\xe9")], b""))
    assert read.document["metadata"]["extensions"]["tenant"] == "café"


def test_text_that_begins_otherwise_is_not_sealed() -> None:
    for value in ("sealed:v2:x", "Sealed:v1:x", " sealed:v1:x", "x sealed:v1:"):
        check_every_hop(
            EVENT | {"data": [value], "tenant": value}, structured(EVENT | {"data": [value], "tenant": value})
        )


def test_the_clock_gives_the_time_of_an_event_without_time() -> None:
    """The document says so, and the digest leaves the time out."""
    early, late = (decode_http(*structured(EVENT), now, 1) for now in (NOW, datetime(2026, 8, 1, tzinfo=UTC)))
    assert isinstance(early, IncomingEvent)
    assert isinstance(late, IncomingEvent)
    assert early.encoded.digest == late.encoded.digest
    assert of_document(early.encoded.document).time is None
