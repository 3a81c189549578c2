"""The caller of a request, and the caller's permissions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from twofold.errors import Forbidden
from twofold.event.reserved import is_reserved


class Permission(StrEnum):
    """The permissions that a token may have. A caller needs no permission to read their own events."""

    PUBLISH = "events:publish"
    """Publish events without a user, or with the token's subject as the user."""
    PUBLISH_ANY = "events:publish:any"
    """Publish events of any user: for services."""
    PUBLISH_RESERVED = "events:publish:reserved"
    """Publish in the name of the cluster (`event/reserved.py`)."""
    READ_ALL = "events:read:all"
    """Read the events of every user in `events`."""
    AUDIT = "audit:read"
    """Read `event_store`."""
    ADMIN = "admin"
    """Browse, export and delete in `events`. Implies `events:read:all` and `audit:read`."""


_IMPLIED = {
    Permission.ADMIN: {Permission.READ_ALL, Permission.AUDIT},
    Permission.PUBLISH_ANY: {Permission.PUBLISH},
    Permission.PUBLISH_RESERVED: {Permission.PUBLISH},
}
_NAMES = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller with permissions."""

    subject: str
    permissions: frozenset[str]
    until: float = field(default=inf, compare=False)
    """The time at which the token expires, in seconds since 1970. It includes the leeway for the issuer's clock."""

    @classmethod
    def of(cls, subject: str, roles: Iterable[str], until: float = inf) -> "Principal":
        """Return the principal with the permissions among `roles`, and with the permissions that they imply."""
        named = {Permission(role) for role in roles if role in _NAMES}
        implied = (_IMPLIED.get(permission, set()) for permission in named)
        return cls(subject, frozenset(named.union(*implied)), until)

    def may(self, permission: Permission) -> bool:
        """Return True if the principal has the permission."""
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise `Forbidden` unless the principal has the permission."""
        if permission not in self.permissions:
            raise Forbidden(f"this operation needs the permission {permission}")

    @property
    def visible_user(self) -> str | None:
        """The only user whose events the principal may read, or None for the events of every user."""
        return None if Permission.READ_ALL in self.permissions else self.subject

    def refusal(self, attributes: Mapping[str, str]) -> Forbidden | None:
        """Return the error if the principal may not publish an event with these attributes, or else None.

        The caller has checked `Permission.PUBLISH` already.
        """
        user = attributes.get("userid")
        if user is not None and user != self.subject and Permission.PUBLISH_ANY not in self.permissions:
            return Forbidden(f"an event of another user needs the permission {Permission.PUBLISH_ANY}", "userid")
        if (
            is_reserved(attributes["source"], attributes["type"])
            and Permission.PUBLISH_RESERVED not in self.permissions
        ):
            return Forbidden(f"an event of the cluster needs the permission {Permission.PUBLISH_RESERVED}", "type")
        return None


ANYBODY = Principal("anybody", frozenset(Permission) - {Permission.PUBLISH_RESERVED})
"""The caller of every request with `AUTH=off`."""
