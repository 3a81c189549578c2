"""TODO module."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from twofold.errors import Forbidden
from twofold.event.reserved import is_reserved


class Permission(StrEnum):
    """What a token may allow. Reading one's own events needs none of them."""

    PUBLISH = "events:publish"
    """Publish, without a user or as the user that the token is for."""
    PUBLISH_ANY = "events:publish:any"
    """Publish events of any user: for services."""
    PUBLISH_RESERVED = "events:publish:reserved"
    """Publish in the name of the cluster (`reserved.py`)."""
    READ_ALL = "events:read:all"
    """Read the events of every user in `events`."""
    AUDIT = "audit:read"
    """Read all of `event_store`."""
    ADMIN = "admin"
    """Browse, export and delete in `events`, and read what `events:read:all` and `audit:read` let one read."""


_IMPLIED = {
    Permission.ADMIN: {Permission.READ_ALL, Permission.AUDIT},
    Permission.PUBLISH_ANY: {Permission.PUBLISH},
    Permission.PUBLISH_RESERVED: {Permission.PUBLISH},
}


_NAMES = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and what they may."""

    subject: str
    permissions: frozenset[str]
    until: float = field(default=inf, compare=False)
    """When its token expires, in seconds since 1970, with what the issuer's clock may be off."""

    @classmethod
    def of(cls, subject: str, roles: Iterable[str], until: float = inf) -> "Principal":
        """The principal with those roles that are rights, and with what they imply."""
        named = {Permission(role) for role in roles if role in _NAMES}
        return cls(subject, frozenset(named.union(*(_IMPLIED.get(right, set()) for right in named))), until)

    def may(self, right: Permission) -> bool:
        """Whether it has that right."""
        return right in self.permissions

    def require(self, right: Permission) -> None:
        """Raise `Forbidden` unless it has that right."""
        if right not in self.permissions:
            raise Forbidden(f"this needs the right {right}")

    @property
    def visible_user(self) -> str | None:
        """The one user whose events it may read; None: everybody's."""
        return None if Permission.READ_ALL in self.permissions else self.subject

    def refusal(self, attributes: Mapping[str, str]) -> Forbidden | None:
        """Why it may not publish an event with these attributes; None if it may. That it may at all is asked before."""
        user = attributes.get("userid")
        if user is not None and user != self.subject and Permission.PUBLISH_ANY not in self.permissions:
            return Forbidden(f"another user's name needs the right {Permission.PUBLISH_ANY}", "userid")
        if (
            is_reserved(attributes["source"], attributes["type"])
            and Permission.PUBLISH_RESERVED not in self.permissions
        ):
            return Forbidden(f"the cluster's name needs the right {Permission.PUBLISH_RESERVED}", "type")
        return None


ANYBODY = Principal("anybody", frozenset(Permission) - {Permission.PUBLISH_RESERVED})
"""Who calls while tokens are not asked for."""
