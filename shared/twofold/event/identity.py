"""The identity of an event: the producer's UUID, or a UUID that Twofold derives from `source` and `id`. Pure.

CloudEvents makes the pair (`source`, `id`) unique. A canonical UUID of version 4 or 7 is unique without its source, so
it is the identity itself.
"""

import re
from typing import NamedTuple
from uuid import UUID, uuid5

from twofold.event.canonical import python_json

NAMESPACE = UUID("6ba7c3f4-53c5-5b0e-9d0c-2a6f0e0d7f01")
"""The name space of derived ids (RFC 9562, version 5). It must never change, because the log is permanent."""

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def canonical_id(given: str) -> UUID | None:
    """Return the UUID if `given` is a UUID of version 4 or 7, in lower case with hyphens."""
    return UUID(given) if _CANONICAL_UUID.fullmatch(given) else None


def is_random_or_timed(event_id: UUID) -> bool:
    """Return True for a UUID of version 4 or 7 (RFC 9562: the variant is 0b10)."""
    return (event_id.int >> 76) & 0xF in (4, 7) and (event_id.int >> 62) & 0b11 == 0b10


def derived_id(source: str, given: str) -> UUID:
    """Return the identity of an event with an `id` that is not a canonical UUID."""
    return uuid5(NAMESPACE, python_json([source, given]))


class EventIdentity(NamedTuple):
    """The identity of an event, and the producer's `id` if it is no identity itself."""

    event_id: UUID
    source_event_id: str | None


def identity_of(source: str, given: str) -> EventIdentity:
    """Return the identity for a producer's `source` and `id`."""
    own = canonical_id(given)
    return EventIdentity(derived_id(source, given), given) if own is None else EventIdentity(own, None)
