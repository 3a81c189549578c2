"""The options of several commands, and the filter for reading events."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from twofold.event.time import parse_time
from twofold.query.filters import Filter, Order
from twofold.query.parameters import validate_parameters

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_OFFSET = re.compile(r"(?:[Zz]|[+-]\d\d:\d\d)$", re.ASCII)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LimitOption = Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of lines.")]

TypesOption = Annotated[
    list[str] | None, typer.Option("--type", help="Only events of this type. Repeat the option for more types.")
]
AggregateOption = Annotated[str | None, typer.Option(help="Only events of this aggregate.")]
CorrelationOption = Annotated[str | None, typer.Option(help="Only events with this correlation id.")]
UserOption = Annotated[str | None, typer.Option(help="Only events of this user.")]


def time_text(text: str) -> datetime:
    """Return the time of an option: RFC 3339, or without its offset (UTC), or a date (midnight UTC).

    Raises `BadParameter` with the allowed forms.
    """
    given = text.strip().replace(" ", "T", 1)
    if _DATE.fullmatch(given):
        given += "T00:00:00"
    try:
        return parse_time(given if _OFFSET.search(given) else f"{given}Z").astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!a} is no time: write 2026-07-01, 2026-07-01T12:00:00 (UTC) or 2026-07-01T14:00:00+02:00"
        ) from None


FromOption = Annotated[
    datetime | None,
    typer.Option(
        "--from",
        parser=time_text,
        metavar="TIME",
        help="Only events at this time or later, by the producers' clocks: UTC, or with an offset.",
    ),
]
ToOption = Annotated[
    datetime | None,
    typer.Option(
        "--to",
        parser=time_text,
        metavar="TIME",
        help="Only events before this time, by the producers' clocks: UTC, or with an offset.",
    ),
]
OrderOption = Annotated[Order, typer.Option(help="The order by time: the newest or the oldest event first.")]


def event_filter(**parameters: Any) -> Filter:
    """Return the filter of `parameters`, named as in the HTTP API. None means no condition.

    Raises `Malformed` with the name of the wrong parameter.
    """
    return validate_parameters({name: value for name, value in parameters.items() if value is not None}, Filter)
