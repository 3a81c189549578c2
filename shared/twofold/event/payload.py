"""The check of payloads: a valid payload is equal after JSON and after BSON. Pure."""

from typing import Any

from twofold.errors import Invalid, TooLarge

MAX_DEPTH = 100
"""The deepest nesting of a payload. MongoDB refuses documents beyond 180 levels, and some drivers beyond 100."""

MAX_CONTAINERS = 250_000
"""The most lists and objects in a JSON text: of a request, of a batch, or of a payload.

A list takes 2 bytes of text and 88 bytes of memory, so 12 MiB of text would take 500 MiB. The parser also blocks all
other threads. The characters `[` and `{` are counted, in strings too, because this takes a millisecond for a megabyte.
"""

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1  # a `range` would be slow: it counts, for BSON's Int64

_MAX_WHERE = 200

_Path = tuple[Any, str | int] | None
"""The path of the container, and the name or position in it.

It becomes text only for an error: names may be long and many.
"""


def check_payload(value: object, path: _Path = None, depth: int = 1) -> None:
    """Check a payload, or a part of it at `path`. Raises `Invalid`, with the path, for a value that may not be stored.

    The checks: the types of JSON only, integers of 64 bits, finite numbers, text without lone surrogates, names without
    NUL, and at most `MAX_DEPTH` levels.
    """
    if isinstance(value, str):
        if not is_encodable(value):
            raise Invalid("a string must not contain a lone surrogate", _where(path))
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not _INT64_MIN <= value <= _INT64_MAX:
            raise Invalid("an integer must fit into 64 bits", _where(path))
    elif isinstance(value, float):
        if value - value != 0.0:  # infinity minus infinity is NaN
            raise Invalid("a number must be finite", _where(path))
    elif depth > MAX_DEPTH:
        raise Invalid(f"must not nest deeper than {MAX_DEPTH}", _where(path))
    elif isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str) or "\0" in name or not (name.isascii() or is_encodable(name)):
                raise Invalid("a name must be a string without NUL and lone surrogates", _where((path, ascii(name))))
            kind = type(member)  # the most frequent values skip the call, which costs more than their check
            if kind is str:
                if member.isascii():
                    continue
            elif kind is int:
                if _INT64_MIN <= member <= _INT64_MAX:
                    continue
            elif kind is bool or member is None or (kind is float and member - member == 0.0):
                continue
            check_payload(member, (path, name), depth + 1)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            check_payload(member, (path, position), depth + 1)
    else:
        raise Invalid(f"a {type(value).__name__} is not a JSON value", _where(path))


def _where(path: _Path) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:64]}")
    where = "data" + "".join(reversed(steps))
    return where if len(where) <= _MAX_WHERE else where[:_MAX_WHERE] + "..."


def check_containers(text: bytes) -> None:
    """Check the number of lists and objects in a JSON text before it is parsed. Raises `TooLarge`."""
    if len(text) <= MAX_CONTAINERS:
        return
    number = text.count(b"[") + text.count(b"{")
    if number > MAX_CONTAINERS:
        raise TooLarge(f"the JSON has {number} characters [ or {{: at most {MAX_CONTAINERS} are allowed", "data")


def is_encodable(value: str) -> bool:
    """Return True if UTF-8 can encode the text. JSON's escapes can make lone surrogates, which UTF-8 cannot encode."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
