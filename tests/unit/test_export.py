"""Exports: whole, in each format, and harmless in a spreadsheet."""

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
from twofold.read.export import COLUMNS, FORMULA, PIECE_BYTES, ExportItem, Format, encode_export, escape_formulas
from twofold.read.models import EventOut, UnreadableEvent

pytestmark = pytest.mark.guarantee("R35")

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def shown(event: Event) -> EventOut:
    return EventOut.of_plain(event.to_document() | {"stored_at": NOW})


async def exported(items: Sequence[ExportItem], form: Format) -> str:
    async def source() -> AsyncIterator[ExportItem]:
        for item in items:
            yield item

    return b"".join([piece async for piece in encode_export(source(), form)]).decode()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.slow
@given(listed=st.lists(events, max_size=4))
async def test_json_and_ndjson_hold_every_event_as_it_is_shown(listed: list[Event]) -> None:
    expected = [json.loads(shown(event).model_dump_json()) for event in listed]
    items = [shown(event) for event in listed]
    assert json.loads(await exported(items, "json")) == expected
    lines = (await exported(items, "ndjson")).split("\n")
    assert [json.loads(line) for line in lines[:-1]] == expected
    assert lines[-1] == ""


@pytest.mark.slow
@given(listed=st.lists(events, max_size=4))
async def test_csv_gives_every_value_back(listed: list[Event]) -> None:
    """Or what was made harmless of it."""
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
async def test_nor_does_any_where_something_else_divides_the_cells(values: list[str], delimiter: str) -> None:
    """`;` in much of Europe. What is quoted for commas is taken apart there."""
    listed = [shown(an_event(aggregate_id=value, payload={value: value})) for value in values]
    for row in csv.reader(io.StringIO(await exported(listed, "csv"), newline=""), delimiter=delimiter):
        assert not any(cell.lstrip().startswith(FORMULA) for cell in row)


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_what_a_spreadsheet_would_run_is_text(value: str) -> None:
    """OWASP's list of first characters."""
    assert escape_formulas(value) == f"'{value}"


@pytest.mark.parametrize(
    ("value", "harmless"),
    [("\t=1", "'\t'=1"), ("\r=1", "'\r'=1"), ("a;=1", "a;'=1"), ('a; "-1', "a;' \"-1"), ("a;1=1", "a;1=1")],
)
def test_what_would_begin_a_cell_inside_a_value_is_text(value: str, harmless: str) -> None:
    assert escape_formulas(value) == harmless


@pytest.mark.parametrize("value", ["", "a=1", "1-1", "'=1", " x", "{}", "2026-07-01T00:00:00Z"])
def test_what_is_harmless_stays_as_it_is(value: str) -> None:
    assert escape_formulas(value) == value


@pytest.mark.parametrize("form", ["csv", "json", "ndjson"])
async def test_without_events_it_is_well_formed(form: Format) -> None:
    text = await exported([], form)
    expected: dict[str, Any] = {"csv": [list(COLUMNS)], "json": [], "ndjson": ""}
    parsed: dict[str, Callable[[], Any]] = {
        "csv": lambda: list(csv.reader(io.StringIO(text))),
        "json": lambda: json.loads(text),
        "ndjson": lambda: text,
    }
    assert parsed[form]() == expected[form]


@pytest.mark.parametrize("form", ["csv", "json", "ndjson"])
async def test_an_unreadable_event_has_its_place(form: Format) -> None:
    """It is not left out silently."""
    text = await exported([UnreadableEvent(event_id="x", unreadable=True), *map(shown, some_events(1))], form)
    read: dict[str, Callable[[], Any]] = {
        "csv": lambda: rows(text)[0],
        "json": lambda: json.loads(text)[0],
        "ndjson": lambda: json.loads(text.split("\n")[0]),
    }
    first = read[form]()
    assert first["event_id"] == "x"
    assert str(first["unreadable"]).lower() == "true"


async def test_it_comes_in_pieces() -> None:
    """Not as a whole: the size of an export is no size in memory."""

    async def source() -> AsyncIterator[ExportItem]:
        for event in some_events(500):
            yield shown(event)

    pieces = [len(piece) async for piece in encode_export(source(), "ndjson")]
    assert len(pieces) > 2
    assert max(pieces) < 2 * PIECE_BYTES


async def test_what_goes_wrong_on_the_way_ends_it_visibly() -> None:
    """An export that stops half-way must not look whole: JSON stays open, and the error comes through."""

    async def source() -> AsyncIterator[ExportItem]:
        for event in some_events(500):
            yield shown(event)
        raise ConnectionError

    got = bytearray()

    async def receive() -> None:
        async for piece in encode_export(source(), "json"):
            got.extend(piece)

    with pytest.raises(ConnectionError):
        await receive()
    assert got
    with pytest.raises(json.JSONDecodeError):
        json.loads(got)
