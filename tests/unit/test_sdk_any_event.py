"""CloudEvents' own SDK judges both directions for events of every kind: its pinned version, and its newest version."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.any_events import sdk_events
from tests.cloud_events import structured
from tests.equal_events import OWN_PREFIX, differences, of_cloud_event, of_document
from tests.sdks import NEWEST_PYTHON, NewestSdk, PinnedSdk, Sdk, with_bytes
from tests.strategies import NOW
from tests.strategies import texts as ascii_texts
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.encode import encode_http

pytestmark = pytest.mark.guarantee("R5", "R26")

_PLAIN = ascii_texts.filter(lambda text: "%" not in text and '"' not in text)
"""Text without escapes, for the pinned SDK."""

_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def newest() -> Iterator[NewestSdk]:
    assert NEWEST_PYTHON.exists(), "the newest CloudEvents SDK is missing: make .venv-newest-sdk/made"
    sdk = NewestSdk()
    yield sdk
    sdk.close()


def incoming(headers: dict[str, str], body: bytes) -> IncomingEvent:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    decoded = decode_http(raw, body, NOW, 1)
    assert isinstance(decoded, IncomingEvent)
    return decoded


def check_its_requests(sdk: Sdk, event: dict[str, Any]) -> None:
    """Assert that Twofold reads the SDK's requests in both modes equally."""
    wanted = of_cloud_event(event)
    for form, given_event in (("binary", with_bytes(event)), ("structured", event)):
        read = incoming(*sdk.write(form, given_event))
        assert differences(wanted, of_document(read.encoded.document)) == [], form


def check_our_messages(sdk: Sdk, event: dict[str, Any]) -> None:
    """Assert that the SDK reads Twofold's requests and records equally."""
    wanted = of_cloud_event(event)
    decoded = decode_http(*structured(event), NOW, 1)
    assert isinstance(decoded, IncomingEvent)
    headers, body = encode_http(decoded.event)
    assert differences(wanted, of_cloud_event(sdk.read("http", headers, body))) == []
    record = decoded.encoded.record()
    texts = {name: value.decode() for name, value in record.headers}
    read = sdk.read("kafka", texts, record.value or b"")
    ours = {name: value for name, value in read.items() if not name.startswith(OWN_PREFIX)}
    assert differences(wanted, of_cloud_event(ours)) == []


@_SETTINGS
@given(sdk_events(_PLAIN))
def test_requests_of_the_pinned_sdk_are_read_equally(event: dict[str, Any]) -> None:
    assume("%" not in event["source"])
    check_its_requests(PinnedSdk(), event)


@_SETTINGS
@given(sdk_events(_PLAIN))
def test_the_pinned_sdk_reads_our_messages_equally(event: dict[str, Any]) -> None:
    assume("%" not in event["source"])
    assume(event["id"] == event["id"].strip())
    assume(
        not any(
            " " in value
            for name, value in event.items()
            if name not in ("data", "data_base64", "datacontenttype") and isinstance(value, str)
        )
    )
    check_our_messages(PinnedSdk(), event)


@_SETTINGS
@given(event=sdk_events())
def test_requests_of_the_newest_sdk_are_read_equally(newest: NewestSdk, event: dict[str, Any]) -> None:
    """Its attributes have characters of every plane of Unicode."""
    check_its_requests(newest, event)


@_SETTINGS
@given(event=sdk_events())
def test_the_newest_sdk_reads_our_messages_equally(newest: NewestSdk, event: dict[str, Any]) -> None:
    check_our_messages(newest, event)


@given(st.sampled_from(["binary", "structured"]), sdk_events())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_sdk_agrees_with_itself_and_the_judge(newest: NewestSdk, form: str, event: dict[str, Any]) -> None:
    """A defect of the SDK or of the judge shows here, without Twofold."""
    given_event = with_bytes(event) if form == "binary" else event
    read = newest.read("http", *newest.write(form, given_event))
    assert differences(of_cloud_event(event), of_cloud_event(read)) == [], json.dumps(read)


@given(st.sampled_from(["binary", "structured"]), sdk_events(_PLAIN))
@settings(max_examples=50, deadline=None)
def test_the_pinned_sdk_agrees_with_itself_and_the_judge(form: str, event: dict[str, Any]) -> None:
    sdk = PinnedSdk()
    headers, body = sdk.write(form, with_bytes(event) if form == "binary" else event)
    if form == "binary":
        assert differences(of_cloud_event(event), of_cloud_event(sdk.read("http", headers, body))) == []
    else:
        assert differences(of_cloud_event(event), of_cloud_event(json.loads(body))) == []
