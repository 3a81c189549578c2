"""Who calls, and what they may: JWT bearer tokens, checked against an issuer's keys (RFC 7519, 7517, 6750).

A right is a string in the token's roles claim. `AUTH=off` lets everybody do everything, but for publishing in the
cluster's name; nothing else does.
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
"""How many checked tokens are remembered."""


FETCH_WITHIN_S = 3.0


ASK_AGAIN_S = 10.0
"""How long nobody is asked again for an unknown key, or at an issuer that is away: made-up ids are no burden to it."""


KEPT_S = 3600.0
"""How long keys are good while the issuer is away."""


Headers = Iterable[tuple[bytes, bytes]]


def _jwt() -> Any:
    """PyJWT, imported for the first token: with its cryptography it takes an eighth of a function's start."""
    import jwt  # noqa: PLC0415

    return jwt


class IssuerKeys:
    """The issuer's public keys by their ids: fetched when first needed, and again when they may have changed."""

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
        """That key, or None if the issuer has none of that id.

        A key that the issuer withdrew is good for `fresh_s` at most; while the issuer is away, for an hour. Raises
        `Unavailable` when the key is not known and the issuer is away, or was asked before this call: the key may have
        been rotated in since.
        """
        asked_at = self._clock()
        if self._is_due(key_id):
            async with self._fetching:
                if self._is_due(key_id):  # nobody else fetched meanwhile
                    await self._fetch()
        age = self._clock() - self._fetched_at
        if self._failure and (age > KEPT_S or key_id not in self._keys):
            raise Unavailable("the keys that tokens are checked with can't be had") from self._failure
        if key_id not in self._keys and self._fetched_at < asked_at:
            raise Unavailable("the token's key is not known yet, and the issuer was asked only just now: try again")
        return self._keys.get(key_id)

    def _is_due(self, key_id: str) -> bool:
        now = self._clock()
        if now - self._tried_at < ASK_AGAIN_S:
            return False
        return key_id not in self._keys or now - self._fetched_at > self._fresh_s

    async def _fetch(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(FETCH_WITHIN_S):
                self._keys = _keys_in(json.loads(await asyncio.to_thread(_read, self._url)))
        except (OSError, HTTPException, ValueError) as error:  # TimeoutError is an OSError
            self._failure = error
            logger.warning("the keys at %s can't be had: %r", self._url, error)
        else:
            self._fetched_at, self._failure = began, None
        finally:
            self._tried_at = self._clock()


def _read(url: str) -> bytes:
    """What is there. Raises `OSError`, `HTTPException`, or `ValueError` for more than a set of keys can be."""
    with urlopen(url, timeout=FETCH_WITHIN_S) as answer:  # noqa: S310 - an address of http or https, from the settings
        body: bytes = answer.read(MAX_KEYS_BYTES + 1)
    if len(body) > MAX_KEYS_BYTES:
        raise ValueError(f"over {MAX_KEYS_BYTES} bytes")
    return body


def _keys_in(document: Any) -> dict[str, "PyJWK"]:
    """The public signing keys of a JWK set; what is of another kind is for somebody else. Raises `ValueError`."""
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ValueError("that is no set of keys")  # noqa: TRY004 - what was fetched is wrong, not what was passed
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
            logger.warning("the key %a is not understood: %s", member["kid"][:64], type(error).__name__)
    return keys


class TokenAuthentication:
    """Checks bearer tokens: signature, algorithm, issuer, audience, times. A good one is remembered for a while."""

    def __init__(self, settings: AuthSettings, keys: IssuerKeys, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._known: dict[bytes, tuple[Principal, float]] = {}

    async def principal(self, headers: Headers) -> Principal:
        """Who sent the token. Raises `Unauthorized`, or `Unavailable` when the issuer's keys can't be had."""
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            raise Unauthorized("a bearer token is needed, in one Authorization header", "authorization")
        known = self._known.get(given[0])
        if known is not None and known[1] > self._clock():
            return known[0]
        return await self._check(given[0])

    async def _check(self, value: bytes) -> Principal:
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            raise Unauthorized("only a bearer token is taken", "authorization")
        try:
            claims = await self._claims(token.strip())
        except _jwt().PyJWTError as error:
            raise Unauthorized(_REASONS.get(type(error).__name__, "the token is not valid"), "authorization") from error
        until = float(claims["exp"]) + self._settings.auth_leeway_s
        principal = Principal.of(claims["sub"], self._roles(claims), until)
        self._remember(value, principal)
        return principal

    async def _claims(self, token: bytes) -> Mapping[str, Any]:
        """The token's claims, once all of it was checked. Raises `PyJWTError`, `Unauthorized` or `Unavailable`."""
        jwt = _jwt()
        header = jwt.get_unverified_header(token)
        key_id = header.get("kid")
        key = await self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Unauthorized("the token's key is none of the issuer's", "authorization")
        if key.algorithm_name not in self._settings.auth_algorithms:
            raise jwt.InvalidAlgorithmError
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],  # whatever the token's header says
            issuer=self._settings.auth_issuer,
            audience=self._settings.auth_audience,
            leeway=self._settings.auth_leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        if not claims["sub"]:
            raise jwt.InvalidTokenError
        return claims

    def _roles(self, claims: Mapping[str, Any]) -> list[str]:
        """A list of strings, or words in one string, as OAuth's `scope` has them; a dot leads into an object."""
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
    "InvalidIssuerError": "the token is another issuer's",
    "InvalidAudienceError": "the token is for another audience",
    "InvalidAlgorithmError": "the token's algorithm is not taken",
}
