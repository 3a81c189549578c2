"""A strict JSON parser: UTF-8 only, no NaN, and no name twice in an object. Pure."""

import json
from collections import Counter
from typing import Any, NoReturn

import orjson
from pydantic_core import from_json

from twofold.errors import Invalid, Malformed
from twofold.event.payload import check_containers


def parse(body: bytes, name: str = "the body") -> Any:
    """Return the value of `body`. Errors call the text `name`.

    Raises `Malformed` for invalid JSON, `Invalid` for too deep or large values, and `TooLarge` for too many containers.

    pydantic's parser is six times as fast as Python's, but it keeps only the last of two equal names. Each dropped
    member has a colon. So if the text has no escapes and as many colons as the value in JSON, no member was dropped.
    """
    check_containers(body)
    try:
        value = from_json(body, allow_inf_nan=False)
        if b"\\u" not in body and body.count(b":") == orjson.dumps(value).count(b":"):
            return value
    except (ValueError, orjson.JSONEncodeError):  # orjson refuses integers beyond 64 bits, and deep nesting
        pass
    return parse_for_error(body, name)


def is_json(body: bytes) -> bool:
    """Return True if the bytes are a JSON text. `parse` may refuse its value. Raises `TooLarge` as `parse` does."""
    check_containers(body)
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        return "recursion limit" in str(error)
    return True


def parse_for_error(body: bytes, name: str = "the body") -> Any:
    """Return the same value, or raise the same error, with Python's parser: its errors name the place."""
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Malformed(f"{name} is not UTF-8: {error.reason} at byte {error.start}", "data") from None
    except json.JSONDecodeError as error:
        raise Malformed(
            f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", "data"
        ) from None
    except RecursionError:
        raise Invalid("nests too deep", "data") from None
    except ValueError:  # int() refuses more than 4,300 digits
        raise Invalid("an integer must fit into 64 bits", "data") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise Malformed(f"the name {twice[:64]!a} stands twice in one object", "data")
    return members


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not JSON", "data")
