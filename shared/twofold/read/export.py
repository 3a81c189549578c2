"""Exports of any number of events as CSV, JSON or NDJSON, in chunks of bytes. Pure: no I/O.

A spreadsheet program runs a cell that begins with a character of `FORMULA`. In CSV, such a value therefore gets a `'`
in front (OWASP, "CSV Injection"). Programs in much of Europe divide cells at `;` instead of `,`, and ignore the quotes
of a comma-separated cell there. So a part of a value that would begin a cell after another separator gets a `'` too.
JSON and NDJSON change no value.
"""

import csv
import io
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import Any, Literal

from twofold.event.metadata import Metadata
from twofold.read.models import EventOut, UnreadableEvent, one_line_json

Format = Literal["csv", "json", "ndjson"]

MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""The first characters of a cell that make a spreadsheet program take the cell for a formula."""

_INNER = re.compile(r"""([;|\t\r\n])(?=["'\s]*[=+\-@])""")
"""A character that may divide cells or lines in a program without commas, with a formula behind it."""

_EVENT_COLUMNS = ("event_id", "id", "event_type", "event_version", "timestamp", "order", "stored_at", "aggregate_id")

COLUMNS = (*_EVENT_COLUMNS, *Metadata.model_fields, "digest", "payload", "payload_base64", "unreadable", "altered")
"""The columns of the CSV. The cells of `extensions` and `payload` are JSON."""

CHUNK_BYTES = 64 * 1024
"""The number of bytes that an export gathers before it sends them."""

ExportItem = EventOut | UnreadableEvent


def encode_export(items: AsyncIterable[ExportItem], form: Format) -> AsyncGenerator[bytes]:
    """Return the chunks of an export in a format.

    An error of `items` ends the export early, and the reader can see it: JSON stays open, and the HTTP body has no end.
    """
    return _gather({"csv": _csv, "json": _json, "ndjson": _ndjson}[form](items))


def event_json(item: ExportItem) -> str:
    """Return an event as JSON in a line, in the form of every reader."""
    return one_line_json(item)


async def _gather(texts: AsyncIterator[str]) -> AsyncGenerator[bytes]:
    waiting = bytearray()
    async for text in texts:
        waiting += text.encode()
        if len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


async def _ndjson(items: AsyncIterable[ExportItem]) -> AsyncIterator[str]:
    async for item in items:
        yield event_json(item) + "\n"


async def _json(items: AsyncIterable[ExportItem]) -> AsyncIterator[str]:
    before = "[\n"
    async for item in items:
        yield before + event_json(item)
        before = ",\n"
    yield ("[" if before == "[\n" else "\n") + "]\n"


async def _csv(items: AsyncIterable[ExportItem]) -> AsyncIterator[str]:
    yield _line(COLUMNS)
    async for item in items:
        yield _line(_cells(item))


def _cells(item: ExportItem) -> Iterable[str]:
    fields = item.model_dump(mode="json")
    metadata = fields.pop("metadata", {})
    fields |= {name: value for name, value in metadata.items() if name in Metadata.model_fields}
    if "payload" in fields:
        fields["payload"] = json.dumps(fields["payload"], ensure_ascii=False)
    return (escape_formulas(_text(fields.get(name))) for name in COLUMNS)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def escape_formulas(value: str) -> str:
    """Return the value as a cell without a formula, for every separator that a spreadsheet program may use."""
    value = _INNER.sub(r"\1'", value)
    return f"'{value}" if value.startswith(FORMULA) else value


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
