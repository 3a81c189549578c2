"""One event of each kind of data: published in binary mode, and read again through `query` and `audit`."""

import base64
import json
from typing import Any

import httpx

from dev.stack.running import Running

SOURCE = "/demo/kinds-of-data"
KINDS = {
    "JSON object": ("application/json", b'{"total":3}'),
    "JSON list": ("application/vnd.shop+json", b'[1,1.0,"a",null]'),
    "JSON string": ("application/json", '"Grüße"'.encode()),
    "JSON number": ("application/json", b"9007199254740993"),
    "JSON null": ("application/json", b"null"),
    "text": ("text/plain", "Grüße, 世界".encode()),
    "text in Latin-1": ("text/plain; charset=ISO-8859-1", "Grüße".encode("latin-1")),
    "XML": ("application/xml", b"<total>3</total>"),
    "bytes": ("image/png", b"\x89PNG\r\n\x1a\n\x00"),
    "no data": ("", b""),
}
"""The content type and the data of each kind."""


def publish(running: Running, run: str) -> list[str]:
    """Publish the events of this run. Return the unexpected answers."""
    surprises = []
    for kind, (content_type, body) in KINDS.items():
        headers = {"ce-specversion": "1.0", "ce-type": "demo.kind", "ce-source": SOURCE, "ce-id": f"{run} {kind}"}
        headers |= running.headers | ({"content-type": content_type} if content_type else {})
        answer = httpx.post(running.publish_url, headers=headers, content=body)
        surprises += [] if answer.status_code == 202 else [f"the event with {kind}: {answer.text}"]
    return surprises


def read_back(running: Running, run: str) -> tuple[dict[str, Any], list[str]]:
    """Return the data of each kind as readers show it, and the complaints about data that is not as it was sent."""
    shown: dict[str, Any] = {}
    wrong = []
    for kind, (content_type, body) in KINDS.items():
        asked = {"source": SOURCE, "id": f"{run} {kind}"}
        events = [
            httpx.get(f"{running.urls[name]}/event", params=asked, headers=running.headers).json()
            for name in ("query", "audit")
        ]
        shown[kind] = {name: events[0][name] for name in ("payload", "payload_base64") if name in events[0]}
        wrong += [f"the event with {kind}: {event}" for event in events if _body(event, content_type) != body]
    return shown, wrong


def _body(event: dict[str, Any], content_type: str) -> bytes:
    """Return the bytes of the data in a reader's event."""
    if "payload_base64" in event:
        return base64.b64decode(event["payload_base64"])
    if "payload" not in event:
        return b""
    if "json" in content_type:
        return json.dumps(event["payload"], separators=(",", ":"), ensure_ascii=False).encode()
    return str(event["payload"]).encode("latin-1" if "8859" in content_type else "utf-8")
