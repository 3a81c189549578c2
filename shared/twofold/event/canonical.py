"""Canonical JSON: the form of a payload in digests and in Kafka. Pure.

The form is Python's: UTF-8, names in the order of code points, no white space, numbers as Python's `repr` writes them.
It must never change, because digests in the log depend on it.
"""

import json
import re
from typing import Any

import orjson

from twofold.errors import Invalid

python_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

_PERHAPS_EXPONENT, _SMALL = re.compile(rb"e[-+0-9]"), re.compile(rb"0\.0000")  # fast filters, before the exact pattern
_EXPONENT = re.compile(rb"(?:^|[:,\[])-?[0-9][0-9.]*e")


def canonical_json(payload: Any) -> bytes:
    """Return the canonical JSON of a payload. Raises `Invalid` for a payload that JSON cannot express.

    orjson needs a tenth of Python's time. But it may write a number with an exponent in another form, and it takes no
    subclass of `float`. Python's encoder writes payloads with such numbers.
    """
    try:
        encoded = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
        has_exponent = _PERHAPS_EXPONENT.search(encoded) and _EXPONENT.search(encoded)
        if not (has_exponent or _SMALL.search(encoded)):
            return encoded
    except orjson.JSONEncodeError:
        pass
    try:
        return python_json(payload).encode()
    except (TypeError, ValueError) as error:
        raise Invalid(f"is not JSON: {error}", "data") from error
