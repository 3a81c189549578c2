"""The judge of equal events finds each difference, and no difference between two spellings of the same event."""

import base64
import copy
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.cloud_events import FIXTURES, binary, percent_encoded
from tests.equal_events import (
    ComparableEvent,
    differences,
    milliseconds_of,
    of_cloud_event,
    of_document,
    of_reader,
    of_record,
    typed,
)

pytestmark = pytest.mark.dev

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/s",
    "type": "t",
    "subject": " ä ",
    "time": "2026-03-14T09:26:53.5891239Z",
    "eventversion": "2",
    "tenant": "",
    "traceparent": "00-1-2-03",
    "datacontenttype": "text/plain",
    "data": "grün",
}
READER: dict[str, Any] = {
    "event_id": "00000000-0000-8000-8000-000000000001",
    "id": "1",
    "event_type": "t",
    "event_version": "2",
    "timestamp": "2026-03-14T09:26:53.589Z",
    "aggregate_id": " ä ",
    "metadata": {
        "service_name": "/s",
        "data_content_type": "text/plain",
        "original_time": "2026-03-14T09:26:53.5891239Z",
        "traceparent": "00-1-2-03",
        "extensions": {"tenant": ""},
    },
    "payload": "grün",
}
DOCUMENT = READER | {"_id": UUID(int=1), "timestamp": datetime(2026, 3, 14, 9, 26, 53, 589000, UTC)}


def exact(**values: str | None) -> str:
    """Return a value of `twofoldexact`."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def record(**changes: str) -> list[tuple[str, bytes]]:
    """Return the headers of the record of `EVENT`."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": "1",
        "ce_source": "/s",
        "ce_type": "t",
        "ce_subject": "ä",
        "ce_time": "2026-03-14T09:26:53.589Z",
        "ce_eventversion": "2",
        "ce_tenant": "",
        "ce_traceparent": "00-1-2-03",
        "ce_twofolddigest": "00",
        "ce_twofoldexact": exact(subject=" ä ", time="2026-03-14T09:26:53.5891239Z"),
        "content-type": "text/plain",
    }
    return [(name, value.encode()) for name, value in (attributes | changes).items()]


def test_all_forms_of_an_event_are_equal() -> None:
    expected = of_cloud_event(EVENT)
    assert differences(expected, of_reader(READER)) == []
    assert differences(expected, of_document(DOCUMENT)) == []
    assert differences(expected, of_record(record(), "grün".encode())) == []


READER_CHANGES: list[tuple[list[str], Any]] = [
    (["id"], "2"),
    (["event_type"], "T"),
    (["event_version"], "1.0"),
    (["aggregate_id"], "ä"),
    (["aggregate_id"], None),
    (["timestamp"], "2026-03-14T09:26:53.590Z"),
    (["metadata", "service_name"], "/s/"),
    (["metadata", "time_assigned"], True),
    (["metadata", "original_time"], None),
    (["metadata", "original_time"], "2026-03-14T09:26:53.5891238Z"),
    (["metadata", "data_content_type"], "text/plain; charset=utf-8"),
    (["metadata", "traceparent"], "00-1-3-03"),
    (["metadata", "extensions"], {}),
    (["metadata", "extensions"], {"tenant": "", "more": ""}),
    (["metadata", "user_id"], "ann"),
    (["payload"], "grun"),
]


@pytest.mark.parametrize(("path", "value"), READER_CHANGES, ids=str)
def test_a_change_is_a_difference(path: list[str], value: Any) -> None:
    changed = copy.deepcopy(READER)
    inner = changed[path[0]] if len(path) > 1 else changed
    inner[path[-1]] = value
    assert differences(of_cloud_event(EVENT), of_reader(changed))


@pytest.mark.parametrize(
    "changes",
    [
        {"ce_id": "2"},
        {"ce_tenant": " "},
        {"ce_extra": ""},
        {"ce_twofoldexact": exact(subject="ä", time=EVENT["time"])},
        {"ce_twofoldexact": exact(subject=" ä ")},
        {"ce_twofoldexact": exact(subject=" ä ", time=EVENT["time"], datacontenttype=None)},
        {"ce_twofoldtimeassigned": "true"},
        {"content-type": "text/html"},
    ],
    ids=str,
)
def test_a_changed_header_is_a_difference(changes: dict[str, str]) -> None:
    assert differences(of_cloud_event(EVENT), of_record(record(**changes), "grün".encode()))


def of(**members: Any) -> ComparableEvent:
    return of_cloud_event({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **members})


DATA: dict[str, dict[str, Any]] = {
    "none": {},
    "null": {"data": None},
    "integer": {"data": 1},
    "number": {"data": 1.0},
    "true": {"data": True},
    "string": {"data": "1"},
    "zero": {"data": 0.0},
    "negative zero": {"data": -0.0},
    "empty object": {"data": {}},
    "empty array": {"data": []},
    "null in it": {"data": [None]},
    "bytes": {"data_base64": "MQ=="},
    "typed bytes": {"data_base64": "MQ==", "datacontenttype": "image/png"},
    "text": {"data": "1", "datacontenttype": "text/plain"},
    "xml": {"data": "1", "datacontenttype": "text/xml"},
    "text with a charset": {"data": "1", "datacontenttype": "text/plain; charset=utf-8"},
    "other spelling of JSON": {"data": 1, "datacontenttype": "application/json; charset=utf-8"},
    "other JSON": {"data": 1, "datacontenttype": "text/json"},
}


def test_each_kind_of_data_differs_from_all_others() -> None:
    names = [*DATA]
    equal = [
        (first, second)
        for first in names
        for second in names
        if first != second and not differences(of(**DATA[first]), of(**DATA[second]))
    ]
    assert equal == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"data": 1}, {"data": 1, "datacontenttype": "application/json"}),
        ({"data": {"a": 1, "b": 2}}, {"data_base64": "eyJiIjoyLCJhIjoxfQ==", "datacontenttype": "application/json"}),
        ({"data": "ü", "datacontenttype": "text/plain"}, {"data_base64": "w7w=", "datacontenttype": "text/plain"}),
        ({"data": "1", "datacontenttype": "image/x"}, {"data_base64": "MQ==", "datacontenttype": "image/x"}),
        ({"data": "", "datacontenttype": "text/plain"}, {"datacontenttype": "text/plain"}),
        ({"data_base64": "", "datacontenttype": "image/x"}, {"datacontenttype": "image/x"}),
        ({"data": None, "data_base64": "MQ=="}, {"data_base64": "MQ=="}),
        ({"subject": None, "data_base64": None}, {}),
        ({"eventversion": "1.0"}, {}),
        ({"n": 1, "b": True}, {"n": "1", "b": "true"}),
        ({"time": "2026-01-01T01:00:00+01:00"}, {"time": "2026-01-01T00:00:00.000000000Z"}),
    ],
    ids=str,
)
def test_two_spellings_of_an_event_are_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert differences(of(**first), of(**second)) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-01-01T00:00:00.0001Z", "2026-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ("2026-01-01T00:00:00.001Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_two_times_differ(first: str, second: str) -> None:
    assert differences(of(time=first), of(time=second))


def test_a_time_is_cut_off_to_milliseconds() -> None:
    assert milliseconds_of("1970-01-01T00:00:00.0019Z") == 1
    assert milliseconds_of("2016-12-31T23:59:60Z") == milliseconds_of("2017-01-01T00:59:59+01:00")


def test_text_that_is_invalid_in_its_charset_is_bytes() -> None:
    latin = {"datacontenttype": "text/plain; charset=iso-8859-1", "data_base64": "6Q=="}
    assert of(**latin).data == ("text", "é")
    assert of(datacontenttype="text/plain", data_base64="6Q==").data == ("bytes", b"\xe9")
    assert of(datacontenttype="text/plain; charset=x-none", data_base64="6Q==").data == ("bytes", b"\xe9")


def test_hops_may_add_attributes() -> None:
    assert differences(of(), of(traceparent="x", knativehistory="y")) == []
    assert differences(of(traceparent="x"), of())


def test_integers_keep_64_bits() -> None:
    assert typed(2**63 - 1) != typed(2**63 - 2)


def test_the_encoder_escapes_by_the_http_binding() -> None:
    assert percent_encoded('a ~%"ä😀\x7f') == "a%20~%25%22%C3%A4%F0%9F%98%80%7F"
    assert binary({"id": "1", "data_base64": "MQ=="}) is None
    assert binary({"id": "1", "data": "ä", "datacontenttype": "text/plain; charset=iso-8859-1"}) == (
        [(b"ce-id", b"1"), (b"content-type", b"text/plain; charset=iso-8859-1")],
        b"\xe4",
    )


def test_every_fixture_holds_its_event_as_the_judge_reads_it() -> None:
    """Requests in structured mode and in batches contain the event itself, in another spelling perhaps."""
    assert len(FIXTURES) > 100
    for fixture in FIXTURES:
        if fixture.mode in ("structured", "batch", "kafka-structured"):
            content = json.loads(fixture.body)
            members = content if isinstance(content, list) else [content]
            found = [
                differences(of_cloud_event(m), of_cloud_event(e)) for m, e in zip(members, fixture.events, strict=True)
            ]
            assert not any(found), fixture.name
        elif fixture.mode == "kafka-binary":
            (event,) = fixture.events
            headers = [(name, value.encode()) for name, value in fixture.headers.items()]
            assert differences(of_cloud_event(event), of_record(headers, fixture.body)) == [], fixture.name
        else:
            (event,) = fixture.events
            request = binary(event)
            assert request is not None
            body = fixture.body if fixture.body in (request[1], b"") else json.loads(fixture.body)
            assert body == (request[1] if isinstance(body, bytes) else json.loads(request[1])), fixture.name
