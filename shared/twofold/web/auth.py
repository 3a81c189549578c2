"""TODO module."""

from typing import Protocol

from twofold.settings import AuthSettings
from twofold.web.permissions import ANYBODY, Principal
from twofold.web.tokens import Headers, IssuerKeys, TokenAuthentication, logger


class Authenticator(Protocol):
    """Says who calls."""

    async def principal(self, headers: Headers) -> Principal:
        """Who sent a request with these headers. Raises `Unauthorized`, or `Unavailable` if that can't be known."""
        ...


class NoAuthentication:
    """Asks for no token: everybody may do everything, but for publishing in the cluster's name."""

    async def principal(self, headers: Headers) -> Principal:
        """Anybody."""
        return ANYBODY


def authenticator(settings: AuthSettings) -> Authenticator:
    """What the settings ask for. Raises `ValueError`, which names each setting that is missing.

    With `AUTH=off` that is said in the log, each time that a function starts, whatever `LOG_LEVEL` is.
    """
    if settings.auth == "off":
        logger.error("AUTH=off: no token is asked for, and everybody may do everything")
        return NoAuthentication()
    needed = {
        "AUTH_ISSUER": settings.auth_issuer,
        "AUTH_AUDIENCE": settings.auth_audience,
        "AUTH_JWKS_URL": settings.auth_jwks_url,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise ValueError(f"{', '.join(missing)} must be set, or AUTH=off, which lets everybody do everything")
    if not settings.auth_jwks_url.startswith(("https://", "http://")):
        raise ValueError("AUTH_JWKS_URL must begin with https:// or http://")
    return TokenAuthentication(settings, IssuerKeys(settings.auth_jwks_url, settings.auth_keys_fresh_s))
