"""The digest of an event: SHA-256 of its content and its data. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from twofold.event.data import EncodedData
from twofold.event.time import exact_instant

KAFKA_SOURCE_ATTRIBUTES = frozenset(
    {
        *("knativekafkapartition", "knativekafkaoffset"),
        *("knativeerrordest", "knativeerrorcode", "knativeerrordata"),
    }
)
"""The attributes that our KafkaSource sets in its requests: a record's place in Kafka, and a failed delivery. A
producer's own values travel in `twofoldexact`."""

HOP_ATTRIBUTES = KAFKA_SOURCE_ATTRIBUTES | {
    *("traceparent", "tracestate", "baggage"),
    *("knativearrivaltime", "knativebrokerttl", "knativehistory"),
}
"""Attributes that a hop adds: a trace, a Broker, a KafkaSource, a failed delivery. The event keeps the first accepted
values, and its digest leaves them out. So a retry through a Broker is a duplicate. The list belongs to version 1 of the
digest, and must never change."""

_VERSION = b"twofold digest 1\n"


def compute_digest(given_id: str, content: Mapping[str, Any], data: EncodedData, time: str) -> bytes:
    """Return the digest, 32 bytes.

    `content` has the document's `event_type`, `event_version`, `aggregate_id` and `metadata`. The digest leaves out
    `HOP_ATTRIBUTES`, and a time that `publish` assigned. So a retry of an event without `time` has the same digest at
    any later time. Of a finer time, it covers the instant and not the text.
    """
    metadata = content["metadata"]
    if "traceparent" in metadata or "extensions" in metadata:
        metadata = _without_hops(metadata)
    if "original_time" in metadata:
        metadata, time = {**metadata}, exact_instant(metadata["original_time"])
        del metadata["original_time"]
    timestamp = None if "time_assigned" in metadata else time
    # orjson's sorted JSON is canonical for strings.
    head = orjson.dumps(
        {**content, "id": given_id, "metadata": metadata, "timestamp": timestamp}, option=orjson.OPT_SORT_KEYS
    )
    return hashlib.sha256(b"%b%b\n%b\n%b" % (_VERSION, head, *data)).digest()


def _without_hops(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in metadata.items() if name not in HOP_ATTRIBUTES}
    extensions: Mapping[str, str] = kept.get("extensions", {})
    if not HOP_ATTRIBUTES.isdisjoint(extensions):
        kept["extensions"] = {name: value for name, value in extensions.items() if name not in HOP_ATTRIBUTES}
        if not kept["extensions"]:
            del kept["extensions"]
    return kept
