"""Exports: complete in every format, and harmless in a spreadsheet."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import an_event, some_events
from tests.strategies import events
from twofold.event.model import Event
from twofold.read.export import CHUNK_BYTES, COLUMNS, FORMULA, ExportItem, Format, encode_export, escape_formulas
from twofold.read.models import EventOut, UnreadableEvent

pytestmark = pytest.mark.guarantee("R35")

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def shown(event: Event) -> EventOut:
    return EventOut.of_decoded(event.to_document() | {"stored_at": NOW})


async def exported(items: Sequence[ExportItem], form: Format) -> str:
    async def source() -> AsyncIterator[ExportItem]:
        for item in items:
            yield item

    return b"".join([chunk async for chunk in encode_export(source(), form)]).decode()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.slow
@given(listed=st.lists(events, max_size=4))
async def test_json_and_ndjson_hold_every_event_in_the_readers_form(listed: list[Event]) -> None:
    expected = [json.loads(shown(event).model_dump_json()) for event in listed]
    items = [shown(event) for event in listed]
    assert json.loads(await exported(items, "json")) == expected
    lines = (await exported(items, "ndjson")).split("\n")
    assert [json.loads(line) for line in lines[:-1]] == expected
    assert lines[-1] == ""


@pytest.mark.slow
@given(listed=st.lists(events, max_size=4))
async def test_csv_holds_every_value(listed: list[Event]) -> None:
    """A formula has its escaped form."""
    found = rows(await exported([shown(event) for event in listed], "csv"))
    assert len(found) == len(listed)
    for cells, event in zip(found, listed, strict=True):
        assert cells["payload"] == escape_formulas(json.dumps(event.payload, ensure_ascii=False))
        assert cells["event_type"] == escape_formulas(event.event_type)
        assert cells["aggregate_id"] == escape_formulas(event.aggregate_id or "")
        extensions = event.metadata.extensions
        assert cells["extensions"] == (
            escape_formulas(json.dumps(extensions, ensure_ascii=False)) if extensions else ""
        )
        for name, value in event.metadata_fields.items():
            if isinstance(value, str):
                assert cells[name] == escape_formulas(value)


@pytest.mark.slow
@given(listed=st.lists(events, max_size=3))
async def test_no_cell_of_the_csv_begins_a_formula(listed: list[Event]) -> None:
    for row in csv.reader(io.StringIO(await exported([shown(event) for event in listed], "csv"), newline="")):
        assert not any(cell.startswith(FORMULA) for cell in row)


tricky = st.text(st.sampled_from("""=+-@;|,"' a"""), min_size=1, max_size=12).filter(lambda text: text == text.strip())


@given(values=st.lists(tricky, min_size=1, max_size=4), delimiter=st.sampled_from(",;|\t"))
async def test_no_cell_begins_a_formula_with_another_separator(values: list[str], delimiter: str) -> None:
    """In much of Europe the separator is `;`, and quotes for commas do not help there."""
    listed = [shown(an_event(aggregate_id=value, payload={value: value})) for value in values]
    for row in csv.reader(io.StringIO(await exported(listed, "csv"), newline=""), delimiter=delimiter):
        assert not any(cell.lstrip().startswith(FORMULA) for cell in row)


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_a_formula_becomes_text(value: str) -> None:
    """The first characters are OWASP's list."""
    assert escape_formulas(value) == f"'{value}"


@pytest.mark.parametrize(
    ("value", "harmless"),
    [("\t=1", "'\t'=1"), ("\r=1", "'\r'=1"), ("a;=1", "a;'=1"), ('a; "-1', "a;' \"-1"), ("a;1=1", "a;1=1")],
)
def test_a_formula_inside_a_value_becomes_text(value: str, harmless: str) -> None:
    assert escape_formulas(value) == harmless


@pytest.mark.parametrize("value", ["", "a=1", "1-1", "'=1", " x", "{}", "2026-07-01T00:00:00Z"])
def test_a_harmless_value_stays_unchanged(value: str) -> None:
    assert escape_formulas(value) == value


@pytest.mark.parametrize("form", ["csv", "json", "ndjson"])
async def test_an_export_without_events_is_well_formed(form: Format) -> None:
    text = await exported([], form)
    expected: dict[str, Any] = {"csv": [list(COLUMNS)], "json": [], "ndjson": ""}
    parsed: dict[str, Callable[[], Any]] = {
        "csv": lambda: list(csv.reader(io.StringIO(text))),
        "json": lambda: json.loads(text),
        "ndjson": lambda: text,
    }
    assert parsed[form]() == expected[form]


@pytest.mark.parametrize("form", ["csv", "json", "ndjson"])
async def test_an_unreadable_event_keeps_its_place(form: Format) -> None:
    """No export leaves the event out."""
    text = await exported([UnreadableEvent(event_id="x", unreadable=True), *map(shown, some_events(1))], form)
    read: dict[str, Callable[[], Any]] = {
        "csv": lambda: rows(text)[0],
        "json": lambda: json.loads(text)[0],
        "ndjson": lambda: json.loads(text.split("\n")[0]),
    }
    first = read[form]()
    assert first["event_id"] == "x"
    assert str(first["unreadable"]).lower() == "true"


async def test_an_export_comes_in_chunks() -> None:
    """The size of an export does not matter for memory."""

    async def source() -> AsyncIterator[ExportItem]:
        for event in some_events(500):
            yield shown(event)

    sizes = [len(chunk) async for chunk in encode_export(source(), "ndjson")]
    assert len(sizes) > 2
    assert max(sizes) < 2 * CHUNK_BYTES


async def test_an_export_that_breaks_off_is_visibly_incomplete() -> None:
    """The JSON stays open, and the caller gets the error."""

    async def source() -> AsyncIterator[ExportItem]:
        for event in some_events(500):
            yield shown(event)
        raise ConnectionError

    got = bytearray()

    async def receive() -> None:
        async for chunk in encode_export(source(), "json"):
            got.extend(chunk)

    with pytest.raises(ConnectionError):
        await receive()
    assert got
    with pytest.raises(json.JSONDecodeError):
        json.loads(got)


@pytest.mark.fault("C14")
@pytest.mark.parametrize("form", ["ndjson", "json"])
async def test_an_event_has_one_line_for_every_reader(form: Format) -> None:
    """Python's `splitlines`, and readers that use it, also end a line at U+0085, U+2028 and U+2029."""
    text = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA1), 0x2028, 0x2029, 0x1F600]))
    items = [shown(an_event(payload={"text": text, text[1:]: 1})) for _ in range(2)]
    output = await exported(items, form)
    lines = [line for line in output.splitlines() if line not in ("[", "]")]
    assert len(lines) == 2
    for line, item in zip(lines, items, strict=True):
        assert json.loads(line.rstrip(",")) == json.loads(item.model_dump_json())
