"""JWT bearer tokens, checked with the keys of one issuer (RFC 7519, 7517, 6750).

A permission is a string in the roles claim of a token. The issuer's keys come from `AUTH_JWKS_URL`:

- The first token fetches the keys. They are fresh for `AUTH_KEYS_FRESH_S` seconds. Then the next token fetches them.
- A token with an unknown key id fetches the keys too, but at most once in `RETRY_S` seconds. Invented key ids therefore
  put no load on the issuer. A real key may be new, so a token in the meantime gets 503, which is retried, and not 401.
- While the issuer is unavailable, known keys stay valid for `KEPT_S` seconds after the last fetch.

A checked token is remembered until it expires, but no longer than the keys are fresh.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from twofold.errors import Unauthorized, Unavailable
from twofold.settings import AuthSettings
from twofold.web.permissions import Principal

if TYPE_CHECKING:
    from jwt import PyJWK


logger = logging.getLogger(__name__)


MAX_TOKEN_BYTES = 16 * 1024
MAX_KEYS_BYTES = 1024 * 1024
KNOWN_TOKENS = 2_000
"""The largest number of remembered tokens."""
FETCH_TIMEOUT_S = 3.0
RETRY_S = 10.0
"""The shortest time between two fetches, in seconds."""
KEPT_S = 3600.0
"""Seconds that keys stay valid while the issuer is unavailable."""

Headers = Iterable[tuple[bytes, bytes]]


def _jwt() -> Any:
    """Import PyJWT for the first token. With its cryptography, PyJWT takes an eighth of a function's start."""
    import jwt  # noqa: PLC0415

    return jwt


class IssuerKeys:
    """The issuer's public keys by their ids. `clock` gives monotonic seconds."""

    def __init__(self, url: str, fresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._fresh_s = fresh_s
        self._clock = clock
        self._keys: Mapping[str, PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failure: Exception | None = None
        self._fetching = asyncio.Lock()

    async def get(self, key_id: str) -> "PyJWK | None":
        """Return the key, or None if the issuer has no key with this id.

        A key that the issuer withdrew stays valid for `fresh_s` at most, and for `KEPT_S` while the issuer is
        unavailable. Raises `Unavailable` for an unknown key when the issuer is unavailable, or when the last fetch was
        before this call: the issuer may have added the key since.
        """
        called_at = self._clock()
        if self._is_due(key_id):
            async with self._fetching:
                if self._is_due(key_id):  # another token did not fetch them meanwhile
                    await self._fetch()
        age = self._clock() - self._fetched_at
        if self._failure and (age > KEPT_S or key_id not in self._keys):
            raise Unavailable(
                "the issuer's keys are unavailable, so tokens can't be checked: try again"
            ) from self._failure
        if key_id not in self._keys and self._fetched_at < called_at:
            raise Unavailable("the token's key is unknown, and the issuer's keys were fetched just before: try again")
        return self._keys.get(key_id)

    def _is_due(self, key_id: str) -> bool:
        now = self._clock()
        if now - self._tried_at < RETRY_S:
            return False
        return key_id not in self._keys or now - self._fetched_at > self._fresh_s

    async def _fetch(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                self._keys = _keys_in(json.loads(await asyncio.to_thread(_read, self._url)))
        except (OSError, HTTPException, ValueError) as error:  # TimeoutError is an OSError
            self._failure = error
            logger.warning("can't fetch the issuer's keys from %s: %r", self._url, error)
        else:
            self._fetched_at, self._failure = began, None
        finally:
            self._tried_at = self._clock()


def _read(url: str) -> bytes:
    """Return the document at `url`. Raises `OSError`, `HTTPException`, or `ValueError` if it is too large."""
    with urlopen(url, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310 - an address of http or https, from the settings
        body: bytes = answer.read(MAX_KEYS_BYTES + 1)
    if len(body) > MAX_KEYS_BYTES:
        raise ValueError(f"the document has more than {MAX_KEYS_BYTES} bytes")
    return body


def _keys_in(document: Any) -> dict[str, "PyJWK"]:
    """Return the public signing keys of a JWK set, without its other keys. Raises `ValueError` for another document."""
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ValueError("the document is not a JWK set")  # noqa: TRY004 - the fetched content is wrong, not a type
    keys = {}
    for member in members:
        if not isinstance(member, dict) or member.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if member.get("use", "sig") != "sig" or not isinstance(member.get("kid"), str):
            continue
        jwt = _jwt()
        try:
            keys[member["kid"]] = jwt.PyJWK(member)
        except jwt.PyJWTError as error:
            logger.warning("the issuer's key %a is unusable: %s", member["kid"][:64], type(error).__name__)
    return keys


class TokenAuthentication:
    """Checks signature, algorithm, issuer, audience and times of bearer tokens. `clock` gives seconds since 1970."""

    def __init__(self, settings: AuthSettings, keys: IssuerKeys, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._known: dict[bytes, tuple[Principal, float]] = {}

    async def principal(self, headers: Headers) -> Principal:
        """Return the token's sender. Raises `Unauthorized`, or `Unavailable` when the token's key is unavailable."""
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            raise Unauthorized("a request needs one Authorization header with a bearer token", "authorization")
        known = self._known.get(given[0])
        if known is not None and known[1] > self._clock():
            return known[0]
        return await self._check(given[0])

    async def _check(self, value: bytes) -> Principal:
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            raise Unauthorized(
                f"the header must be `Bearer TOKEN`, with a token of at most {MAX_TOKEN_BYTES} bytes", "authorization"
            )
        try:
            claims = await self._claims(token.strip())
        except _jwt().PyJWTError as error:
            raise Unauthorized(_REASONS.get(type(error).__name__, "the token is not valid"), "authorization") from error
        until = float(claims["exp"]) + self._settings.auth_leeway_s
        principal = Principal.of(claims["sub"], self._roles(claims), until)
        self._remember(value, principal)
        return principal

    async def _claims(self, token: bytes) -> Mapping[str, Any]:
        """Check the token, and return its claims. Raises `PyJWTError`, `Unauthorized` or `Unavailable`."""
        jwt = _jwt()
        header = jwt.get_unverified_header(token)
        key_id = header.get("kid")
        key = await self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Unauthorized("the issuer has no key with the token's key id (`kid`)", "authorization")
        if key.algorithm_name not in self._settings.auth_algorithms:
            raise jwt.InvalidAlgorithmError
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],  # the token's header does not choose the algorithm
            issuer=self._settings.auth_issuer,
            audience=self._settings.auth_audience,
            leeway=self._settings.auth_leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        if not claims["sub"]:
            raise jwt.InvalidTokenError
        return claims

    def _roles(self, claims: Mapping[str, Any]) -> list[str]:
        """Return the roles: strings of a list, or words of one string as in OAuth's `scope`. A dot enters an object."""
        found: Any = claims
        for name in self._settings.auth_roles_claim.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str):
            return found.split()
        return [role for role in found if isinstance(role, str)] if isinstance(found, list) else []

    def _remember(self, value: bytes, principal: Principal) -> None:
        if len(self._known) >= KNOWN_TOKENS:
            del self._known[next(iter(self._known))]
        fresh_until = self._clock() + self._settings.auth_keys_fresh_s
        self._known[value] = principal, min(principal.until, fresh_until)


_REASONS = {
    "ExpiredSignatureError": "the token has expired",
    "ImmatureSignatureError": "the token is not valid yet",
    "InvalidIssuerError": "the token has another issuer (`iss`)",
    "InvalidAudienceError": "the token has another audience (`aud`)",
    "InvalidAlgorithmError": "the token's algorithm is not allowed: see AUTH_ALGORITHMS",
}
