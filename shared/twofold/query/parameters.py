"""A request's query string, read strictly. Pure.

A parameter that the model does not have is an error that names it. The result has the model's own types, so a string
from a URL never becomes an operator of a MongoDB query.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar, get_origin
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from twofold.errors import Forbidden, Malformed, Problem
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES, printable_name
from twofold.event.time import EARLIEST, parse_time
from twofold.query.limits import MAX_PARAMETERS

Model = TypeVar("Model", bound=BaseModel)

_SPACE_BEFORE_OFFSET = re.compile(r" \d\d:\d\d$", re.ASCII)
_BELOW_MICROSECOND = re.compile(r"\.\d{6}\d*[1-9]", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MILLISECOND = timedelta(milliseconds=1)


def parse_query(
    query_string: bytes | str,
    model: type[Model],
    in_path: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Model:
    """Return the parameters of a query string as a `model`.

    The aliases of the model's fields are the parameters' names. A parameter may be repeated if its field is a tuple.
    `in_path` has the values of the fields that stand in the path instead. A `user` is the only allowed value of the
    parameter `user`, and its default.

    Raises `Forbidden` for another user. Raises `Malformed` with the name of a parameter that is unknown, repeated,
    empty or wrong.
    """
    values: dict[str, Any] = dict(in_path or {})
    repeatable = {
        field.alias or name: get_origin(field.annotation) is tuple for name, field in model.model_fields.items()
    }
    repeatable = {name: repeated for name, repeated in repeatable.items() if name not in values}
    for name, value in _pairs(query_string):
        if name not in repeatable:
            if not repeatable:
                raise Malformed("this operation has no parameters: remove this parameter", printable_name(name))
            known = ", ".join(repeatable)
            raise Malformed(f"unknown parameter; known parameters: {known}", printable_name(name))
        if not value:
            raise Malformed("must not be empty", name)
        if repeatable[name]:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Malformed("must be given only once", name)
        else:
            values[name] = value
    if user is not None and values.setdefault("user", user) != user:
        raise Forbidden("the caller's permissions cover only the caller's own events", "user")
    return validate_parameters(values, model)


def _pairs(query_string: bytes | str) -> list[tuple[str, str]]:
    text = query_string.decode("latin-1") if isinstance(query_string, bytes) else query_string
    try:
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:  # UnicodeDecodeError is a ValueError
        raise Malformed(
            f"must be NAME=VALUE pairs in percent-encoded UTF-8, joined by &, and at most {MAX_PARAMETERS} pairs",
            "query",
        ) from None


def validate_parameters(values: dict[str, Any], model: type[Model]) -> Model:
    """Return `values` as a `model`. Raises `Malformed` with the name of every wrong parameter, and with no value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = tuple(
            Problem(str(wrong["loc"][0]) if wrong["loc"] else "query", wrong["msg"])
            for wrong in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise Malformed("; ".join(f"{where}: {what}" for where, what in problems), problems=problems) from None


def _time(value: object) -> datetime:
    """Return the time in UTC, rounded up to milliseconds.

    MongoDB stores whole milliseconds, so the rounded bound selects the same events as the given bound.
    """
    finest = False
    if isinstance(value, str):
        finest = _BELOW_MICROSECOND.search(value) is not None
        value = _parsed_time(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise PydanticCustomError("time", "must be a time with a time zone")
    try:
        rounded = value.astimezone(UTC)
        finer = rounded.microsecond % 1000
        if finer or finest:
            rounded += _MILLISECOND - timedelta(microseconds=finer)
    except OverflowError:
        raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC") from None
    if rounded < EARLIEST:
        raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC")
    return rounded


def _parsed_time(text: str) -> datetime:
    """Return the time of a parameter. A query string turns a plain `+` into a space: the error names `%2B`."""
    try:
        return parse_time(text)
    except ValueError as error:
        if _SPACE_BEFORE_OFFSET.search(text):
            raise PydanticCustomError(
                "time", "has a space before its offset: write the + of the offset as %2B in the address"
            ) from None
        raise PydanticCustomError("time", f"{error}") from None


def _integer(value: object) -> object:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise PydanticCustomError("integer", "must be a whole number")
    return value


def _uuid(value: object) -> object:
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise PydanticCustomError("uuid", "must be a UUID, such as 6ba7c3f4-53c5-4b0e-9d0c-2a6f0e0d7f01")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("text", "must not contain NUL")
    return value


def not_blank(value: str) -> str:
    """Return the text without white space at its ends. Raises `PydanticCustomError` if no text is left."""
    if not value.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return value.strip()


QueryTime = Annotated[datetime, BeforeValidator(_time)]
"""A time in RFC 3339, as a `datetime` in UTC with whole milliseconds."""

WholeNumber = Annotated[int, BeforeValidator(_integer)]
"""An integer in decimal digits."""

EventId = Annotated[UUID, BeforeValidator(_uuid)]
"""An `event_id` with its hyphens."""

AttributeValue = Annotated[str, Field(min_length=1, max_length=MAX_ATTRIBUTE_BYTES)]
"""A value to compare an attribute with, whole and literally."""

SearchText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_without_nul)]
"""A text to search for."""
