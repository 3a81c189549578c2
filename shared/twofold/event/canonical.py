"""TODO module."""

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from twofold.errors import Invalid

python_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


_PERHAPS_EXPONENT, _SMALL = re.compile(rb"e[-+0-9]"), re.compile(rb"0\.0000")  # both begin with what is quickly found


_EXPONENT = re.compile(rb"[:,\[]-?[0-9][0-9.]*e")


def canonical_json(payload: Mapping[str, Any]) -> bytes:
    """JSON in the one form that digests are made of: UTF-8, names in code point order, numbers as Python's repr.

    orjson makes it in a tenth of the time. Numbers that Python writes with an exponent it may write otherwise, and of
    float it takes no subclass: such payloads are left to Python. Raises `Invalid` for what is no JSON.
    """
    try:
        made = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
        has_exponent = _PERHAPS_EXPONENT.search(made) and _EXPONENT.search(made)
        if not (has_exponent or _SMALL.search(made)):
            return made
    except orjson.JSONEncodeError:
        pass
    try:
        return python_json(payload).encode()
    except (TypeError, ValueError) as error:
        raise Invalid(f"is no JSON: {error}", "data") from error
