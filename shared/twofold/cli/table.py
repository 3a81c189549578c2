"""Rows for people: a table, or a block of lines for each row where the table is wider than the terminal.

No value is cut. Values come from producers and from the database, so they are never markup for rich, and a control
character is shown as U+FFFD.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]


def printable(text: str) -> str:
    """Return the text with U+FFFD for each character that could move the cursor, change colours or hide text."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def plain(value: object) -> Text:
    """Return a cell for rich: the text of `value`, with neither markup nor control characters."""
    return Text(printable(str(value)))


def rows_of(value: Row | Sequence[Row], title: str) -> list[dict[str, str]]:
    """Return the rows for a list of objects, or for one object: a row for each member."""
    if isinstance(value, Mapping):
        return [{"": name, title or "value": cell(member)} for name, member in _members(value)]
    return [{name: cell(member) for name, member in row.items()} for row in value]


def _members(value: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the members, and the members of objects inside, such as the checkpoint of a run."""
    for name, member in value.items():
        if isinstance(member, Mapping) and not all(isinstance(inner, int) for inner in member.values()):
            yield from _members(member, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", member


def cell(value: Any) -> str:
    """Return the text of a value."""
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {cell(member)}" for name, member in value.items())
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return printable(str(value))


def render(rows: Sequence[Mapping[str, str]], console: Console, empty: str) -> RenderableType:
    """Return a table that fits the console, or else blocks."""
    if not rows:
        return Text(empty)
    table = Table()
    for name in rows[0]:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*(Text(text) for text in row.values()))
    wide = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    return table if wide <= console.width else Group(*_blocks(rows))


def _blocks(rows: Sequence[Mapping[str, str]]) -> Iterator[Text]:
    names = max(len(name) for name in rows[0])
    for number, row in enumerate(rows):
        if number:
            yield Text()
        if "" in row:
            name, text = row.values()
            yield Text(f"{name}  {text}", no_wrap=True, overflow="ignore")
            continue
        for name, text in row.items():
            yield Text(f"{name:{names}}  {text}", no_wrap=True, overflow="ignore")
