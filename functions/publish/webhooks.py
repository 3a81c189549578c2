"""The handshake of webhooks: CloudEvents "HTTP 1.1 Web Hooks for Event Delivery", section 4.

A sender asks with OPTIONS for the permission to deliver events here, before it sends the first event. The setting
`WEBHOOK_ORIGINS` decides the answer. The handshake needs no token, because Azure Event Grid and similar senders have no
token for it. The handshake gives no right to publish: each POST needs a token as before.

`WebHook-Request-Callback` is ignored. A function that calls addresses from requests would let every caller reach
servers inside the cluster (server-side request forgery).
"""

import re
from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response

from twofold.errors import Forbidden
from twofold.settings import HOST_NAME, MAX_HOST_CHARS

METHODS = ("POST", "OPTIONS")
ORIGIN, RATE = "WebHook-Request-Origin", "WebHook-Request-Rate"

_HOST_NAME = re.compile(HOST_NAME, re.IGNORECASE)
_RATE = re.compile("[1-9][0-9]{0,8}")
_ALLOW = {"Allow": ", ".join(METHODS)}


def answer_options(request: Request, allowed: Collection[str]) -> Response:
    """Return the answer to OPTIONS: 200 for an allowed origin, 204 without an origin. Raises `Forbidden`."""
    origin = request.headers.get(ORIGIN)
    if origin is None:
        return Response(status_code=204, headers=_ALLOW)
    _check_origin(origin, allowed)
    rate = request.headers.get(RATE, "")
    permission = {
        "WebHook-Allowed-Origin": origin,
        "WebHook-Allowed-Rate": rate if _RATE.fullmatch(rate) else "*",
    }
    return Response(headers=_ALLOW | permission)


def _check_origin(origin: str, allowed: Collection[str]) -> None:
    """Raise `Forbidden` unless `origin` is a DNS name that is allowed. The error never repeats the origin."""
    if len(origin) > MAX_HOST_CHARS or not _HOST_NAME.fullmatch(origin):
        raise Forbidden(
            "the origin is not a DNS name: the setting WEBHOOK_ORIGINS of publish allows DNS names only", ORIGIN.lower()
        )
    if "*" not in allowed and origin.lower() not in allowed:
        raise Forbidden(
            "this origin may not register a webhook: add it to the setting WEBHOOK_ORIGINS of publish", ORIGIN.lower()
        )
