"""Events as CSV, JSON or NDJSON, piece by piece, however many. Pure: no I/O.

A spreadsheet takes a cell that begins with one of `FORMULA` for a formula, and runs it; in CSV, such a value gets a `'`
before it (OWASP, "CSV Injection"). So does what, inside a value, would begin a cell where another character divides
cells, as `;` does in much of Europe: quotes don't help there. JSON and NDJSON hold every value as it is.
"""

import csv
import io
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import Any, Literal

from twofold.read.models import EventOut, UnreadableEvent

Format = Literal["csv", "json", "ndjson"]


MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


_INNER = re.compile(r"""([;|\t\r\n])(?=["'\s]*[=+\-@])""")
"""What may divide cells or lines for a program that takes no commas, with a formula behind it."""


OWN = ("event_id", "event_type", "event_version", "timestamp", "stored_at", "aggregate_id")


METADATA = (
    *("service_name", "service_version", "correlation_id", "causation_id", "user_id", "environment", "ip_address"),
    *("user_agent", "traceparent", "source_event_id", "time_assigned", "extensions"),
)


COLUMNS = (*OWN, *METADATA, "digest", "payload", "unreadable")
"""The columns of the CSV; `extensions` and `payload` are JSON."""


PIECE_BYTES = 64 * 1024
"""How much is gathered before it is sent."""


ExportItem = EventOut | UnreadableEvent


def encode_export(items: AsyncIterable[ExportItem], form: Format) -> AsyncGenerator[bytes]:
    """The events in that format. What `items` raises ends it in the middle: the whole is then visibly not whole."""
    return _gathered({"csv": _csv, "json": _json, "ndjson": _ndjson}[form](items))


def event_json(item: ExportItem) -> str:
    """One event as every reader shows it."""
    return item.model_dump_json()


async def _gathered(texts: AsyncIterator[str]) -> AsyncGenerator[bytes]:
    waiting = bytearray()
    async for text in texts:
        waiting += text.encode()
        if len(waiting) >= PIECE_BYTES:
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


def _cells(item: ExportItem) -> Iterable[Any]:
    fields = item.model_dump(mode="json")
    fields |= {name: value for name, value in fields.pop("metadata", {}).items() if name in METADATA}
    return (escape_formulas(_text(fields.get(name))) for name in COLUMNS)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def escape_formulas(value: str) -> str:
    """The value as a cell that no spreadsheet takes for a formula, nor a part of it, whatever divides its cells."""
    value = _INNER.sub(r"\1'", value)
    return f"'{value}" if value.startswith(FORMULA) else value


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
