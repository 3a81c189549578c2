"""The time of an event: UTC, in whole milliseconds, from 1970 to 9999. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from twofold.errors import Invalid

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""The earliest time of an event: the epoch of BSON's and Kafka's timestamps."""


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:(\d\d)(?:\.(\d+))?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> datetime:
    """Return the time of an RFC 3339 text, for producers and readers. A fraction may have any number of digits.

    Digits beyond microseconds are cut off. A leap second is the second before. Raises `ValueError` for another form, or
    a time that does not exist.
    """
    match = _RFC_3339.fullmatch(text)
    if not match:
        raise ValueError("must be an RFC 3339 time, such as 2026-07-01T12:00:00Z")
    is_leap = match[1] == "60"
    try:
        time = datetime.fromisoformat((f"{text[:17]}59{text[19:]}" if is_leap else text).upper())
        is_last_minute = is_leap and time.astimezone(UTC).strftime("%H:%M") == "23:59"
    except (ValueError, OverflowError):
        raise ValueError("must be a date and a time of day that exist") from None
    if is_leap and not is_last_minute:
        raise ValueError("a leap second is the last second of a day in UTC")
    return time


def is_inexact(text: str) -> bool:
    """Return True if milliseconds do not hold the time of an RFC 3339 text: it is finer, or a leap second."""
    match = _RFC_3339.fullmatch(text)
    return match is not None and (match[1] == "60" or bool((match[2] or "")[3:].strip("0")))


def exact_instant(text: str) -> str:
    """Return the instant of an RFC 3339 text in one form: in UTC, with all digits of the fraction that matter.

    A leap second keeps its 60. Raises `ValueError` as `parse_time` does.
    """
    second = parse_time(text).astimezone(UTC)
    match = _RFC_3339.fullmatch(text)
    fraction = (match[2] or "").rstrip("0") if match else ""
    seconds = "60" if match and match[1] == "60" else f"{second:%S}"
    return f"{second:%Y-%m-%dT%H:%M}:{seconds}.{fraction}Z"


def to_utc_milliseconds(value: datetime) -> datetime:
    """Return the time in UTC, cut off to milliseconds: BSON's dates have no finer unit.

    Raises `PydanticCustomError` for a time without a zone, and for a time out of range.
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


def check_not_future(timestamp: datetime, now: datetime, most: timedelta) -> None:
    """Raise `Invalid` for a time that is more than `most` ahead of `now`."""
    if timestamp - now > most:
        raise Invalid(
            f"lies in the future: at most {most.total_seconds():g} s ahead of Twofold's clock are allowed",
            "time",
        )


def format_time(timestamp: datetime) -> str:
    """Return a time in UTC as RFC 3339 with milliseconds: `2026-07-01T12:00:00.000Z`."""
    return timestamp.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Timestamp = Annotated[datetime, AfterValidator(to_utc_milliseconds)]
