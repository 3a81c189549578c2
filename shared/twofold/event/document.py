"""The document of an event, without the fields that the server and the collections add. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from twofold.event.data import NO_DATA
from twofold.event.identity import event_id_of


def document_of(
    given_id: str, content: Mapping[str, Any], timestamp: datetime, payload: Any, digest: bytes
) -> dict[str, Any]:
    """Return the document for `encode_event`. `content` is the argument of `compute_digest`.

    An event without data has no `payload`, and an event that no publisher has accepted yet has no `order`.
    """
    document = {
        "_id": event_id_of(content["metadata"]["service_name"], given_id),
        "id": given_id,
        **content,
        "timestamp": timestamp,
        "payload": payload,
        "digest": digest,
    }
    if payload is NO_DATA:
        del document["payload"]
    return document
