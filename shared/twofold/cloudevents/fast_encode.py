"""The fast way from attributes to an encoded event, without an `Event`. Pure.

Nearly all events of producers take this way. An event that fails the fast check takes the way over `Event`, which
checks it in full. Both ways give equal results.
"""

from datetime import datetime

from twofold.cloudevents.attributes import CANONICAL_TIME, content_fields, time_attribute
from twofold.cloudevents.encode import EncodedEvent
from twofold.errors import Invalid
from twofold.event.data import NO_DATA, NO_ENCODED_DATA, encode_json
from twofold.event.digest import compute_digest
from twofold.event.document import document_of
from twofold.event.fast_check import passes_fast_check
from twofold.event.metadata import DIGEST_ATTRIBUTE, TIME_ASSIGNED_ATTRIBUTE
from twofold.event.time import format_time, is_inexact, to_utc_milliseconds


def encode_fast(attributes: dict[str, str], payload: object, now: datetime) -> EncodedEvent | None:
    """Return the same as `EncodedEvent.of` for an event with JSON data or without data. Return None for another event.

    Raises `Invalid` for an invalid payload.
    """
    if isinstance(payload, bytes):
        return None
    time = attributes.get("time")
    content = content_fields(attributes, assigned=time is None)
    if not passes_fast_check(content, attributes.values()):
        return None
    try:
        if time is not None and CANONICAL_TIME.fullmatch(time):
            timestamp = datetime.fromisoformat(time)
        elif time is not None and is_inexact(time):
            return None
        else:
            timestamp = to_utc_milliseconds(now if time is None else time_attribute(time))
            time = format_time(timestamp)
    except (ValueError, Invalid):
        return None
    data = NO_ENCODED_DATA if payload is NO_DATA else encode_json(payload)
    given = attributes["id"]
    digest = compute_digest(given, content, data, time)
    document = document_of(given, content, timestamp, payload, digest)
    sent = {name: value for name, value in attributes.items() if name != "datacontenttype"}
    sent["time"] = time
    if content["event_version"] == "1.0":
        sent.pop("eventversion", None)
    if "time_assigned" in content["metadata"]:
        sent[TIME_ASSIGNED_ATTRIBUTE] = "true"
    sent[DIGEST_ATTRIBUTE] = digest.hex()
    return EncodedEvent(document, sent, data, is_plain=True)
