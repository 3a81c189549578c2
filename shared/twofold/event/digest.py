"""The digest of an event: SHA-256 of the canonical JSON of its content. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def compute_digest(event_id: str, content: Mapping[str, Any], payload_json: bytes, time: str) -> bytes:
    """Return the digest, 32 bytes.

    `content` has the document's `event_type`, `event_version`, `aggregate_id` and `metadata`. `payload_json` is
    canonical JSON already. The digest leaves out two values:

    - `traceparent`, because it differs from one attempt to the next.
    - A time that `publish` assigned. So a retry of an event without `time` has the same digest at any later time.
    """
    metadata = content["metadata"]
    if "traceparent" in metadata:
        metadata = {name: value for name, value in metadata.items() if name != "traceparent"}
    # orjson's sorted JSON is canonical for strings.
    head = orjson.dumps({**content, "event_id": event_id, "metadata": metadata}, option=orjson.OPT_SORT_KEYS)[:-1]
    timestamp = b"null" if "time_assigned" in metadata else b'"%b"' % time.encode()
    return hashlib.sha256(b'%b,"payload":%b,"timestamp":%b}' % (head, payload_json, timestamp)).digest()
