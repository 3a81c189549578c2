"""A request's query string, read strictly: what a model doesn't know is refused by name, never passed on. Pure.

What comes out is a value of the model's own types: nothing that is written into a URL becomes an operator of a query.
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
from twofold.event.attribute import MAX_ATTRIBUTE_CHARS, printable_name
from twofold.event.time import EARLIEST
from twofold.query.limits import MAX_PARAMETERS

Model = TypeVar("Model", bound=BaseModel)


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


_INTEGER = re.compile(r"-?[0-9]{1,18}")


_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


_MILLISECOND = timedelta(milliseconds=1)


def parse_query(
    query_string: bytes | str,
    model: type[Model],
    in_path: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Model:
    """The parameters as a `model`, whose aliases are their names; one whose field is a tuple may be repeated.

    `in_path` has those of its fields that stand in the path instead. With a `user`, the parameter of that name can say
    nobody else, and says that user where it isn't given. Raises `Forbidden` for another, and `Malformed`, which
    names each parameter that is unknown, repeated, empty or wrong.
    """
    text = query_string.decode("latin-1") if isinstance(query_string, bytes) else query_string
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:  # UnicodeDecodeError is one
        raise Malformed(
            f"the query must be NAME=VALUE, joined by &, percent-encoded UTF-8, and at most {MAX_PARAMETERS} of them",
            "query",
        ) from None
    values: dict[str, Any] = dict(in_path or {})
    many = {field.alias or name: get_origin(field.annotation) is tuple for name, field in model.model_fields.items()}
    many = {name: repeated for name, repeated in many.items() if name not in values}
    for name, value in pairs:
        if name not in many:
            known = ", ".join(many) or "none"
            raise Malformed(f"unknown parameter; those that are known: {known}", printable_name(name))
        if not value:
            raise Malformed("must not be empty", name)
        if many[name]:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Malformed("must be given once", name)
        else:
            values[name] = value
    if user is not None and values.setdefault("user", user) != user:
        raise Forbidden("another user's events need a right of their own", "user")
    return validate_parameters(values, model)


def validate_parameters(values: dict[str, Any], model: type[Model]) -> Model:
    """`values` as a `model`. Raises `Malformed`, which names each that is wrong, and shows none of them."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = tuple(
            Problem(str(wrong["loc"][0]) if wrong["loc"] else "query", wrong["msg"])
            for wrong in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise Malformed("; ".join(f"{where}: {what}" for where, what in problems), problems=problems) from None


def _time(value: object) -> datetime:
    """BSON's dates are whole milliseconds: rounded up, a bound lets through what the finer one would."""
    if isinstance(value, str):
        if not _RFC_3339.fullmatch(value):
            raise PydanticCustomError("time", "must be an RFC 3339 time, such as 2026-07-01T12:00:00Z")
        try:
            value = datetime.fromisoformat(value.upper())
        except ValueError:
            raise PydanticCustomError("time", "is no time of the calendar") from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise PydanticCustomError("time", "must be a time with its zone")
    try:
        whole = value.astimezone(UTC)
        if rest := whole.microsecond % 1000:
            whole += _MILLISECOND - timedelta(microseconds=rest)
    except OverflowError:
        raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC") from None
    if whole < EARLIEST:
        raise PydanticCustomError("time", "must be from 1970 to 9999, in UTC")
    return whole


def _whole(value: object) -> object:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise PydanticCustomError("integer", "must be a whole number")
    return value


def _uuid(value: object) -> object:
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise PydanticCustomError("uuid", "must be a UUID, such as 6ba7c3f4-53c5-4b0e-9d0c-2a6f0e0d7f01")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("text", "must not hold NUL")
    return value


def not_blank(value: str) -> str:
    """The text without the space around it. Raises pydantic's error if nothing else is in it."""
    if not value.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return value.strip()


QueryTime = Annotated[datetime, BeforeValidator(_time)]


WholeNumber = Annotated[int, BeforeValidator(_whole)]


EventId = Annotated[UUID, BeforeValidator(_uuid)]


AttributeValue = Annotated[str, Field(min_length=1, max_length=MAX_ATTRIBUTE_CHARS)]
"""What an attribute is compared with, whole and literally."""


SearchText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_without_nul)]
