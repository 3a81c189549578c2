"""A reserved prefix of strings, for encrypted values of a later version. Pure."""

from typing import Any

from twofold.errors import Invalid

SEALED = "sealed:v1:"
"""The prefix. No string of a payload and no attribute may begin with it."""

_ENCODED = SEALED.encode()


def check_not_sealed(payload: Any, encoded: bytes) -> None:
    """Check the strings of a payload, which `encoded` has as bytes. Raises `Invalid` for a reserved string.

    The search in the bytes is fast, and only a hit needs the look at each value.
    """
    if _ENCODED in encoded and _has_sealed(payload):
        raise Invalid(f"a string must not begin with {SEALED!a}, which is reserved", "data")


def _has_sealed(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith(SEALED)
    if isinstance(value, dict):
        return any(_has_sealed(member) for member in value.values())
    return isinstance(value, list) and any(_has_sealed(member) for member in value)
