"""Tokens of an issuer on this machine: valid tokens are accepted, and every kind of invalid token is refused."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dev.process.child import free_port
from dev.servers import issuer as the_issuer
from dev.servers.issuer import Issuer, public, signing_key, token
from tests.helpers import an_event
from twofold.cloudevents.encode import attributes_of
from twofold.errors import Forbidden, Unauthorized, Unavailable
from twofold.settings import Settings
from twofold.web.auth import authenticator
from twofold.web.permissions import ANYBODY, Permission, Principal
from twofold.web.tokens import KEPT_S, KNOWN_TOKENS, RETRY_S, IssuerKeys, TokenAuthentication

pytestmark = pytest.mark.guarantee("G9")

RSA_KEY = ("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
OTHER_KEY = ("other", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    serving = Issuer()
    serving.start()
    yield serving
    serving.stop()


def settings_for(issuer: Issuer, **changes: Any) -> Settings:
    given = {name.lower(): value for name, value in issuer.settings.items()}
    return Settings.model_validate({"mongodb_uri": "mongodb://x/"} | given | changes)


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tokens(issuer: Issuer) -> TokenAuthentication:
    settings = settings_for(issuer)
    return TokenAuthentication(settings, IssuerKeys(settings.auth_jwks_url, settings.auth_keys_fresh_s))


async def caller(tokens: TokenAuthentication, given: str) -> Principal:
    return await tokens.principal([(b"host", b"x"), (b"authorization", f"Bearer {given}".encode())])


async def refusal(tokens: TokenAuthentication, given: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await caller(tokens, given)
    assert refused.value.status == 401
    return refused.value.detail


async def test_a_valid_token_gives_the_subject_and_the_permissions(tokens: TokenAuthentication) -> None:
    who = await caller(tokens, token("ann", ("events:publish", "no such permission")))
    assert who == Principal("ann", frozenset({Permission.PUBLISH}))


async def test_a_valid_rsa_token_is_accepted(tokens: TokenAuthentication, issuer: Issuer) -> None:
    issuer.keys.append(public(*RSA_KEY, "RS256"))
    assert (await caller(tokens, token("ann", (), key=RSA_KEY, algorithm="RS256"))).subject == "ann"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": -60}, "expired"),
        ({"nbf": 3600}, "not valid yet"),
        ({"iat": 3600}, "not valid yet"),
        ({"iss": "https://issuer.example"}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other", "another"]}, "another audience"),
        ({"exp": None}, "not valid"),
        ({"iss": None}, "not valid"),
        ({"aud": None}, "not valid"),
        ({"sub": None}, "not valid"),
        ({"sub": ""}, "not valid"),
        ({"exp": "soon"}, "not valid"),
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_claim_is_refused(
    tokens: TokenAuthentication, claims: dict[str, Any], reason: str
) -> None:
    """Numbers are seconds from now."""
    now = time.time()
    changed: dict[str, Any] = {name: now + value if isinstance(value, int) else value for name, value in claims.items()}
    assert reason in await refusal(tokens, token("ann", **changed))


async def test_one_audience_of_several_is_enough(tokens: TokenAuthentication) -> None:
    assert (await caller(tokens, token("ann", aud=["other", "twofold"]))).subject == "ann"


async def test_the_issuers_clock_may_differ_by_the_leeway(tokens: TokenAuthentication) -> None:
    assert (await caller(tokens, token("ann", exp=time.time() - 5, nbf=time.time() + 5))).subject == "ann"


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims))
    return (b".".join(parts)).decode()


CLAIMS = {
    "iss": the_issuer.NAME,
    "aud": the_issuer.AUDIENCE,
    "sub": "ann",
    "exp": time.time() + 600,
    "roles": ["admin"],
}


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
async def test_an_unsigned_token_is_refused(tokens: TokenAuthentication, algorithm: str) -> None:
    given = unsigned({"alg": algorithm, "typ": "JWT", "kid": signing_key()[0]}, CLAIMS) + "."
    assert "algorithm" in await refusal(tokens, given)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    tokens: TokenAuthentication, issuer: Issuer, encoding: Encoding
) -> None:
    """The signature is HS256 with the public key as the secret."""
    issuer.keys.append(public(*RSA_KEY, "RS256"))
    secret = RSA_KEY[1].public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    message = unsigned({"alg": "HS256", "typ": "JWT", "kid": RSA_KEY[0]}, CLAIMS)
    signature = hmac.new(secret, message.encode(), hashlib.sha256).digest()
    given = message + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    assert "algorithm" in await refusal(tokens, given)


async def test_a_key_is_used_with_its_own_algorithm_only(tokens: TokenAuthentication, issuer: Issuer) -> None:
    """RS256 is allowed, and the key id is known, but the key has another algorithm."""
    issuer.keys.append(public(*RSA_KEY, "RS256"))
    assert "algorithm" in await refusal(tokens, token(key=(signing_key()[0], RSA_KEY[1]), algorithm="RS256"))


async def test_a_symmetric_key_of_the_issuer_is_ignored(tokens: TokenAuthentication, issuer: Issuer) -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    issuer.keys.append({"kty": "oct", "k": secret, "kid": "oct", "alg": "HS256"})
    assert await refusal(tokens, token(key=("oct", "s" * 32), algorithm="HS256"))


async def test_an_algorithm_outside_the_settings_is_refused(issuer: Issuer) -> None:
    settings = settings_for(issuer, auth_algorithms=("RS256",))
    tokens = TokenAuthentication(settings, IssuerKeys(settings.auth_jwks_url, 300))
    assert "algorithm" in await refusal(tokens, token())


async def test_a_token_of_an_unknown_key_is_refused(tokens: TokenAuthentication) -> None:
    assert "the issuer has no key" in await refusal(tokens, token(key=OTHER_KEY))


async def test_another_key_under_a_known_id_is_refused(tokens: TokenAuthentication) -> None:
    assert await refusal(tokens, token(key=(signing_key()[0], OTHER_KEY[1])))


async def test_a_token_without_a_key_id_is_refused(tokens: TokenAuthentication) -> None:
    given = jwt.encode(CLAIMS, signing_key()[1], algorithm="ES256")
    assert "the issuer has no key" in await refusal(tokens, given)


async def test_a_key_inside_the_token_is_ignored(tokens: TokenAuthentication) -> None:
    brought = {"jwk": public(*OTHER_KEY), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}
    assert await refusal(tokens, token(key=OTHER_KEY, headers=brought))


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_an_altered_token_is_refused(tokens: TokenAuthentication, part: int) -> None:
    parts = token("ann").split(".")
    parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
    assert await refusal(tokens, ".".join(parts))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic YTpi")],
        [(b"authorization", b"Bearer a.b.c")],
        [(b"authorization", b"Bearer \xff.\xff.\xff")],
        [(b"authorization", b"Bearer " + b"x" * 20_000)],
        [(b"authorization", f"Bearer {token()}".encode()), (b"authorization", f"Bearer {token()}".encode())],
    ],
    ids=range(9),
)
async def test_a_request_needs_exactly_one_bearer_token(
    tokens: TokenAuthentication, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(Unauthorized):
        await tokens.principal(headers)


class TestRoles:
    @pytest.mark.parametrize(
        ("claim", "claims"),
        [
            ("roles", {"roles": ["admin", 5, None, "x"]}),
            ("scope", {"scope": "openid admin"}),
            ("realm_access.roles", {"realm_access": {"roles": ["admin"]}}),
        ],
    )
    async def test_the_settings_name_the_claim_of_the_roles(
        self, issuer: Issuer, claim: str, claims: dict[str, Any]
    ) -> None:
        settings = settings_for(issuer, auth_roles_claim=claim)
        who = await caller(
            TokenAuthentication(settings, IssuerKeys(settings.auth_jwks_url, 300)), token("ann", (), **claims)
        )
        assert who.permissions == {Permission.ADMIN, Permission.READ_ALL, Permission.AUDIT}

    @pytest.mark.parametrize("roles", [None, 5, {"admin": True}, [["admin"]], "Admin ADMIN", ["admin "]], ids=str)
    async def test_an_unknown_role_gives_no_permission(self, tokens: TokenAuthentication, roles: Any) -> None:
        assert (await caller(tokens, token("ann", roles=roles))).permissions == frozenset()

    def test_a_permission_implies_other_permissions(self) -> None:
        assert Principal.of("s", ["events:publish:any"]).permissions == {Permission.PUBLISH, Permission.PUBLISH_ANY}
        assert Principal.of("s", ["events:read:all"]).permissions == {Permission.READ_ALL}
        assert not Principal.of("s", ["admin"]).may(Permission.PUBLISH)

    def test_a_missing_permission_is_forbidden(self) -> None:
        with pytest.raises(Forbidden) as refused:
            Principal.of("ann", ["events:publish"]).require(Permission.AUDIT)
        assert refused.value.status == 403


class TestPublishing:
    @pytest.mark.parametrize(
        ("permissions", "user", "allowed"),
        [
            (("events:publish",), None, True),
            (("events:publish",), "ann", True),
            (("events:publish",), "bob", False),
            (("events:publish",), "Ann", False),
            (("events:publish:any",), "bob", True),
            (("events:publish:reserved",), "bob", False),
        ],
    )
    def test_an_event_of_another_user_needs_a_permission(
        self, permissions: tuple[str, ...], user: str | None, allowed: bool
    ) -> None:
        metadata = {"service_name": "/shop"} | ({"user_id": user} if user else {})
        refused = Principal.of("ann", permissions).refusal(attributes_of(an_event(metadata=metadata)))
        assert (refused is None) == allowed

    def test_an_event_of_the_cluster_needs_a_permission(self) -> None:
        event = an_event(event_type="pod.created")
        assert Principal.of("ann", ["events:publish:any"]).refusal(attributes_of(event)) is not None
        assert Principal.of("ann", ["events:publish:reserved"]).refusal(attributes_of(event)) is None


class TestKeys:
    async def test_concurrent_tokens_fetch_the_keys_once(self, tokens: TokenAuthentication, issuer: Issuer) -> None:
        await asyncio.gather(*(caller(tokens, token(f"user-{n}")) for n in range(50)))
        assert issuer.asked == 1

    async def test_a_new_key_is_found(self, issuer: Issuer) -> None:
        clock = Clock()
        keys = IssuerKeys(issuer.url, 300, clock)
        assert await keys.get("other") is None
        issuer.keys = [public(*OTHER_KEY)]
        clock.now = RETRY_S + 1
        assert await keys.get("other") is not None
        assert await keys.get(signing_key()[0]) is None

    async def test_a_key_that_was_just_added_gives_503_and_never_401(self, issuer: Issuer) -> None:
        """An invented id caused a fetch a moment ago, so there is no second fetch so soon. A 401 would be final."""
        clock = Clock()
        keys = IssuerKeys(issuer.url, 300, clock)
        assert await keys.get("invented") is None
        issuer.keys.append(public(*OTHER_KEY))
        clock.now = 1.0
        with pytest.raises(Unavailable):
            await keys.get("other")
        assert issuer.asked == 1
        clock.now = RETRY_S + 1
        assert await keys.get("other") is not None

    async def test_invented_key_ids_put_no_load_on_the_issuer(self, issuer: Issuer) -> None:
        keys = IssuerKeys(issuer.url, 300, Clock())
        for number in range(100):
            assert await keys.get(f"invented-{number}") is None
        assert issuer.asked == 1

    async def test_a_withdrawn_key_becomes_invalid(self, issuer: Issuer) -> None:
        """A token that was checked with the key becomes invalid too, before it expires."""
        settings, clock = settings_for(issuer), Clock(time.time())
        tokens = TokenAuthentication(settings, IssuerKeys(issuer.url, settings.auth_keys_fresh_s, clock), clock)
        given = token("ann")
        await caller(tokens, given)
        issuer.keys = [public(*OTHER_KEY)]
        await caller(tokens, given)
        clock.now += settings.auth_keys_fresh_s + 1
        await refusal(tokens, given)

    async def test_without_keys_the_answer_is_503(self) -> None:
        """The same request can succeed later."""
        keys = IssuerKeys(f"http://127.0.0.1:{free_port()}/", 300)
        with pytest.raises(Unavailable):
            await keys.get("any")

    @pytest.mark.parametrize(("size", "is_read"), [(1_048_576, True), (1_048_577, False)])
    async def test_a_key_set_is_at_most_a_mebibyte(self, issuer: Issuer, size: int, is_read: bool) -> None:
        """The issuer's answer is read into memory as a whole."""
        issuer.keys.append({"kty": "oct", "k": ""})
        issuer.keys[-1]["k"] = "x" * (size - len(json.dumps({"keys": issuer.keys})))
        keys = IssuerKeys(issuer.url, 300)
        if is_read:
            assert await keys.get(signing_key()[0]) is not None
        else:
            with pytest.raises(Unavailable):
                await keys.get(signing_key()[0])

    @pytest.mark.parametrize("keys", ["none", [5], [{"kty": "EC", "kid": "x"}]], ids=str)
    async def test_an_unusable_key_is_left_out(self, issuer: Issuer, keys: Any) -> None:
        issuer.keys = keys
        if keys == "none":
            with pytest.raises(Unavailable):
                await IssuerKeys(issuer.url, 300).get("x")
        else:
            assert await IssuerKeys(issuer.url, 300).get("x") is None

    async def test_known_keys_stay_valid_while_the_issuer_is_unavailable(self) -> None:
        clock, issuer = Clock(), Issuer()
        issuer.start()
        keys, known = IssuerKeys(issuer.url, 300, clock), signing_key()[0]
        await keys.get(known)
        issuer.stop()
        clock.now = 301
        assert await keys.get(known) is not None
        clock.now += RETRY_S + 1
        with pytest.raises(Unavailable):
            await keys.get("other")
        clock.now = KEPT_S + 301
        with pytest.raises(Unavailable):
            await keys.get(known)


class TestRemembered:
    async def test_an_expired_token_is_forgotten(self, issuer: Issuer) -> None:
        settings, clock = settings_for(issuer), Clock(time.time())
        tokens = TokenAuthentication(settings, IssuerKeys(issuer.url, 300), clock)
        given = token("ann", exp=time.time() - 20)
        await caller(tokens, given)
        clock.now += 11
        assert tokens._known[f"Bearer {given}".encode()][1] < clock.now

    async def test_the_number_of_remembered_tokens_is_bounded(
        self, tokens: TokenAuthentication, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(KNOWN_TOKENS + 5):
            tokens._remember(f"{number}".encode(), ANYBODY)
        assert len(tokens._known) == KNOWN_TOKENS


class TestSettings:
    def test_a_function_without_an_issuer_does_not_start_and_names_the_settings(self) -> None:
        with pytest.raises(ValueError, match="AUTH_ISSUER, AUTH_AUDIENCE, AUTH_JWKS_URL must be set, or AUTH=off"):
            authenticator(Settings.model_validate({"mongodb_uri": "mongodb://x/"}))

    async def test_auth_off_is_logged_at_every_start(self, caplog: pytest.LogCaptureFixture) -> None:
        off = Settings.model_validate({"mongodb_uri": "mongodb://x/", "auth": "off", "log_level": "ERROR"})
        for _ in range(2):
            with caplog.at_level(off.log_level):
                who = await authenticator(off).principal([])
            assert who.permissions == set(Permission) - {Permission.PUBLISH_RESERVED}
        assert caplog.text.count("AUTH=off") == 2

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", "jwks.json"])
    def test_keys_come_from_http_addresses_only(self, url: str) -> None:
        given = {"auth_issuer": "x", "auth_audience": "x", "auth_jwks_url": url}
        with pytest.raises(ValueError, match="AUTH_JWKS_URL"):
            authenticator(Settings.model_validate({"mongodb_uri": "mongodb://x/"} | given))
