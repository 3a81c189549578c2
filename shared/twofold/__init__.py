"""Event storage for Knative: the package that every function ships with.

This module is the public API for application code. Its names are imported when they are first used, so a function
loads only the parts that it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twofold.errors import Conflict, Invalid, Problem, Rejected, TooLarge, TwofoldError, Unavailable
    from twofold.event.metadata import Metadata
    from twofold.event.model import Event
    from twofold.settings import Settings
    from twofold.write.batch import Published
    from twofold.write.publisher import Publisher, open_publisher

_MODULE_OF = {
    **dict.fromkeys(
        ("Conflict", "Invalid", "Problem", "Rejected", "TooLarge", "TwofoldError", "Unavailable"), "twofold.errors"
    ),
    "Event": "twofold.event.model",
    "Metadata": "twofold.event.metadata",
    "Published": "twofold.write.batch",
    **dict.fromkeys(("Publisher", "open_publisher"), "twofold.write.publisher"),
    "Settings": "twofold.settings",
}

__all__ = [
    "Conflict",
    "Event",
    "Invalid",
    "Metadata",
    "Problem",
    "Published",
    "Publisher",
    "Rejected",
    "Settings",
    "TooLarge",
    "TwofoldError",
    "Unavailable",
    "open_publisher",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'twofold' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
