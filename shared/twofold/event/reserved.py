"""The source and the types that only Twofold's own functions may publish. Pure."""

POD_SOURCE = "/pod_events"
"""The `source` of pod events. With it, their ids have their own name space."""

POD_TYPES = "pod."
"""The prefix of the types of pod events."""


def is_reserved(source: str, event_type: str) -> bool:
    """Return True if only `pod_events` may publish an event with this source and type."""
    return source == POD_SOURCE or event_type.startswith(POD_TYPES)
