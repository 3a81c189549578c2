"""TODO module."""

from typing import Any

from twofold.errors import Invalid

MAX_DEPTH = 100
"""How deep a payload may nest. MongoDB refuses a document beyond 100 levels in some of its drivers, and 180 itself."""


_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1  # no `range`: it counts up to the Int64 that BSON gives back


_MAX_WHERE = 200


_Path = tuple[Any, str | int] | None
"""What contains it, and its name or position there. Written out only for an error: names may be long, and many."""


def check_payload(value: object, path: _Path = None, depth: int = 1) -> None:
    """Raise `Invalid`, with the path, for what BSON and JSON can't both carry and give back equal."""
    if isinstance(value, str):
        if not is_encodable(value):
            raise Invalid("a string must not hold a lone surrogate", _where(path))
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not _INT64_MIN <= value <= _INT64_MAX:
            raise Invalid("an integer must fit into 64 bits", _where(path))
    elif isinstance(value, float):
        if value - value != 0.0:  # only NaN and the infinities differ from themselves
            raise Invalid("a number must be finite", _where(path))
    elif depth > MAX_DEPTH:
        raise Invalid(f"must not nest deeper than {MAX_DEPTH}", _where(path))
    elif isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str) or "\0" in name or not (name.isascii() or is_encodable(name)):
                raise Invalid("a name must be a string without NUL and lone surrogates", _where((path, ascii(name))))
            kind = type(member)
            if (kind is str and member.isascii()) or (kind is int and _INT64_MIN <= member <= _INT64_MAX):
                continue  # most are such, and a call costs more than to look
            check_payload(member, (path, name), depth + 1)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            check_payload(member, (path, position), depth + 1)
    else:
        raise Invalid(f"a {type(value).__name__} is no JSON value", _where(path))


def _where(path: _Path) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:64]}")
    where = "data" + "".join(reversed(steps))
    return where if len(where) <= _MAX_WHERE else where[:_MAX_WHERE] + "..."


def is_encodable(value: str) -> bool:
    """Whether UTF-8 can carry it: JSON's escapes can make lone surrogates."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
