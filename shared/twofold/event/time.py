"""TODO module."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""No event is older: BSON's and Kafka's clocks begin here."""


def to_utc_milliseconds(value: datetime) -> datetime:
    """BSON's dates are UTC milliseconds, so an event's time is too: what is finer is cut off before the digest.

    Raises `PydanticCustomError` for a time that no event can have.
    """
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise PydanticCustomError("time", "must have a time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC") from None
    if value < EARLIEST:
        raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC")
    finer = value.microsecond % 1000
    return value.replace(microsecond=value.microsecond - finer) if finer else value


def format_time(timestamp: datetime) -> str:
    """A time of UTC, as an event's `time` is written: with milliseconds."""
    return timestamp.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Timestamp = Annotated[datetime, AfterValidator(to_utc_milliseconds)]
