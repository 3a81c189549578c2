"""Authentication of callers, as the settings choose it: bearer tokens, or `AUTH=off`."""

import logging
from importlib.util import find_spec
from typing import Protocol

from twofold.errors import InvalidSettings, MissingExtra
from twofold.settings import AuthSettings
from twofold.web.permissions import ANYBODY, Permission, Principal
from twofold.web.tokens import Headers, IssuerKeys, TokenAuthentication

logger = logging.getLogger(__name__)


class Authenticator(Protocol):
    """Identifies the caller of a request."""

    async def principal(self, headers: Headers) -> Principal:
        """Return the caller. Raises `Unauthorized`, or `Unavailable` while the caller can't be identified."""
        ...


class NoAuthentication:
    """Asks for no token. Every caller has every permission except `events:publish:reserved`."""

    async def principal(self, headers: Headers) -> Principal:
        """Return `ANYBODY`."""
        return ANYBODY


def authenticator(settings: AuthSettings) -> Authenticator:
    """Return the authenticator of the settings. Raises `InvalidSettings` or `MissingExtra`.

    `AUTH=off` writes an error to the log at every start of a function, so every `LOG_LEVEL` shows it.
    """
    if settings.auth == "off":
        logger.error(
            "AUTH=off: this function asks for no token, and every caller has every permission except %s",
            Permission.PUBLISH_RESERVED,
        )
        return NoAuthentication()
    check_auth(settings)
    return TokenAuthentication(settings, IssuerKeys(settings.auth_jwks_url, settings.auth_keys_fresh_s))


def check_auth(settings: AuthSettings) -> None:
    """Check the issuer's settings without a connection.

    Raises `InvalidSettings` with the name of every missing setting, or `MissingExtra`.
    """
    if settings.auth == "off":
        return
    needed = {
        "AUTH_ISSUER": settings.auth_issuer,
        "AUTH_AUDIENCE": settings.auth_audience,
        "AUTH_JWKS_URL": settings.auth_jwks_url,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise InvalidSettings(
            f"{', '.join(missing)} must be set, or AUTH=off, which gives every caller every permission "
            f"except {Permission.PUBLISH_RESERVED}"
        )
    if not settings.auth_jwks_url.startswith(("https://", "http://")):
        raise InvalidSettings("AUTH_JWKS_URL must begin with https:// or http://")
    if find_spec("jwt") is None:
        raise MissingExtra("PyJWT", "auth")
