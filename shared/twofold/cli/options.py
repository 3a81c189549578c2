"""The options of several commands, and the filter for reading events."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from twofold.query.filters import Filter, Order
from twofold.query.parameters import validate_parameters

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LimitOption = Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of lines.")]

TypesOption = Annotated[
    list[str] | None, typer.Option("--type", help="Only events of this type. Repeat the option for more types.")
]
AggregateOption = Annotated[str | None, typer.Option(help="Only events of this aggregate.")]
CorrelationOption = Annotated[str | None, typer.Option(help="Only events with this correlation id.")]
UserOption = Annotated[str | None, typer.Option(help="Only events of this user.")]
FromOption = Annotated[
    datetime | None, typer.Option("--from", help="Only events at this time (UTC) or later, by the producers' clocks.")
]
ToOption = Annotated[
    datetime | None, typer.Option("--to", help="Only events before this time (UTC), by the producers' clocks.")
]
OrderOption = Annotated[Order, typer.Option(help="The order by time: the newest or the oldest event first.")]


def event_filter(**parameters: Any) -> Filter:
    """Return the filter of `parameters`, named as in the HTTP API. None means no condition; a time is in UTC.

    Raises `Malformed` with the name of the wrong parameter.
    """
    values = {name: in_utc(value) if isinstance(value, datetime) else value for name, value in parameters.items()}
    return validate_parameters({name: value for name, value in values.items() if value is not None}, Filter)


def in_utc(time: datetime) -> datetime:
    """Return a time of the command line with its time zone."""
    return time.replace(tzinfo=UTC)
