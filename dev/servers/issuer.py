"""An issuer of tokens on this machine, in place of Keycloak or another OpenID provider."""

import functools
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

NAME = "https://issuer.local"
AUDIENCE = "twofold"
LIFETIME_S = 7 * 24 * 3600.0
"""A week: a test may set a function's clock off by hours, and the token must stay valid."""
SERVICE_PERMISSIONS = ("events:publish:any", "events:publish:reserved", "events:read:all", "audit:read", "admin")


@functools.cache
def signing_key() -> tuple[str, EllipticCurvePrivateKey]:
    """Return the id and the key of this process."""
    return str(uuid4()), generate_private_key(SECP256R1())


def token(
    subject: str = "service",
    permissions: tuple[str, ...] = SERVICE_PERMISSIONS,
    *,
    key: tuple[str, Any] | None = None,
    algorithm: str = "ES256",
    headers: Mapping[str, Any] | None = None,
    **claims: Any,
) -> str:
    """Return a token for `subject` with these permissions. `claims` replace the usual claims; None removes a claim."""
    key_id, private = key or signing_key()
    usual = {"iss": NAME, "aud": AUDIENCE, "sub": subject, "exp": time.time() + LIFETIME_S, "roles": list(permissions)}
    payload = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode(payload, private, algorithm=algorithm, headers={"kid": key_id} | dict(headers or {}))


def public(key_id: str, private: Any, algorithm: str = "ES256") -> dict[str, Any]:
    """Return the public half of a key as a JWK."""
    half: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return half | {"kid": key_id, "use": "sig", "alg": algorithm}


def token_for(form: str) -> str:
    """Return the token that a form asks for: `sub`, and `roles` with spaces between them."""
    fields = dict(parse_qsl(form))
    return token(fields.get("sub", "service"), tuple(fields.get("roles", "").split()))


class Issuer:
    """A server of a JWK set on loopback, which also makes tokens. A test may change `keys` at any time."""

    def __init__(self, port: int = 0) -> None:
        self.keys: list[dict[str, Any]] = [public(*signing_key())]
        self.asked = 0
        """The number of requests for the JWK set."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self._answer("application/jwk-set+json", json.dumps({"keys": issuer.keys}))

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
                self._answer("text/plain", token_for(form))

            def _answer(self, content_type: str, text: str) -> None:
                body = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep requests out of the output of tests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="issuer", daemon=True)

    @property
    def url(self) -> str:
        """The URL of the JWK set."""
        return f"http://127.0.0.1:{self._server.server_port}/jwks.json"

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which a function accepts this issuer's tokens."""
        return {"AUTH_ISSUER": NAME, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS_URL": self.url}

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
