"""docs/cloudevents.md agrees with the code: its reader of the topic, its identities, and its lists of names."""

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest

from dev.paths import ROOT
from tests.cloud_events import FIXTURES, Fixture, structured
from tests.strategies import NOW
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.encode import EncodedEvent
from twofold.cloudevents.strict_json import is_json
from twofold.event.digest import HOP_ATTRIBUTES
from twofold.event.identity import event_id_of
from twofold.event.media_type import parse_content_type
from twofold.event.metadata import RESERVED_ATTRIBUTES
from twofold.event.time import exact_instant

pytestmark = pytest.mark.dev

TEXT = (ROOT / "docs" / "cloudevents.md").read_text()

Reader = Callable[[object, bytes], tuple[dict[str, str], bytes]]


@pytest.fixture(scope="module")
def cloud_event() -> Reader:
    """Return the function in the Python block."""
    (block,) = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    reader: Reader = names["cloud_event"]
    return reader


def decoded(event: Mapping[str, Any]) -> EncodedEvent:
    incoming = decode_http(*structured(event), NOW, 1000)
    assert isinstance(incoming, IncomingEvent)
    return incoming.encoded


def section(title: str) -> str:
    """Return the text below a heading, up to the next heading."""
    return re.split(r"^##+ ", TEXT.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def names_in(text: str) -> set[str]:
    """Return the names in backticks in the first column of the table."""
    return {name for row in re.findall(r"^\| (.+?) \|", text, re.MULTILINE) for name in re.findall("`(.+?)`", row)}


@pytest.mark.parametrize("fixture", FIXTURES, ids=[fixture.name for fixture in FIXTURES])
def test_an_event_that_the_reader_found_in_the_topic_is_a_duplicate(cloud_event: Reader, fixture: Fixture) -> None:
    for event in fixture.events:
        published = decoded(event)
        record = published.record()
        attributes, value = cloud_event(record.headers, record.value)
        if event.get("time") is None:
            del attributes["time"]
        again = decoded({**attributes, "data_base64": base64.b64encode(value).decode()})
        assert (again.event_id, again.digest) == (published.event_id, published.digest)


def test_the_identities_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `([0-9a-f-]{36})` \|", section("Identity"), re.MULTILINE)
    assert len(rows) == 3
    assert [event_id_of(source, given) for source, given, _ in rows] == [UUID(event_id) for *_, event_id in rows]


def test_every_attribute_of_a_hop_is_listed() -> None:
    assert names_in(section("Attributes of hops")) == HOP_ATTRIBUTES


def test_every_reserved_name_is_listed() -> None:
    assert names_in(section("Reserved names")) == RESERVED_ATTRIBUTES | {"data", "data_base64"}


def test_every_listed_type_of_text_is_text() -> None:
    (listed,) = re.findall(r"in `application/`: (.+?)\.\n", TEXT, re.DOTALL)
    names = re.findall("`(.+?)`", listed)
    assert len(names) == 10
    assert {parse_content_type(f"application/{name}").kind for name in names} == {"text"}


def test_the_equal_times_are_one_instant() -> None:
    (times,) = re.findall(r"`(\S+)` and\n`(\S+)` of a day are equal", TEXT)
    assert len({exact_instant(f"2026-07-01T{time}") for time in times}) == 1


def test_a_body_without_a_content_type_is_json_within_the_described_limits() -> None:
    (digits,) = re.findall(r"an integer of more than ([0-9,]+) digits", TEXT)
    (levels,) = re.findall(r"Beyond ([0-9]+) levels, the parser stops", TEXT)
    most, deepest = int(digits.replace(",", "")), int(levels)
    assert (is_json(b"1" * most), is_json(b"1" * (most + 1))) == (True, False)
    assert (is_json(b"[" * deepest + b"x"), is_json(b"[" * (deepest + 1) + b"x")) == (False, True)
    for body in (b"NaN", b'"\\ud800"', "\ufeff1".encode()):
        assert not is_json(body)
