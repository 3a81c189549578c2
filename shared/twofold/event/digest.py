"""TODO module."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def compute_digest(event_id: str, said: Mapping[str, Any], payload_json: bytes, time: str) -> bytes:
    """SHA-256 (32 bytes) of the canonical JSON of all that the producer said; `payload_json` is canonical already.

    `said` has the document's `event_type`, `event_version`, `aggregate_id` and `metadata`. Left out are `traceparent`,
    which differs from one attempt to the next, and the time if the producer gave none: a retry without `time` is the
    same event, whatever the clock says by then.
    """
    metadata = said["metadata"]
    if "traceparent" in metadata:
        metadata = {name: value for name, value in metadata.items() if name != "traceparent"}
    # Of strings, orjson's JSON with its names in order is the canonical one.
    head = orjson.dumps({**said, "event_id": event_id, "metadata": metadata}, option=orjson.OPT_SORT_KEYS)[:-1]
    timestamp = b"null" if "time_assigned" in metadata else b'"%b"' % time.encode()
    return hashlib.sha256(b'%b,"payload":%b,"timestamp":%b}' % (head, payload_json, timestamp)).digest()
