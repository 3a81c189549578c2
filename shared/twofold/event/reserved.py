"""The names that only Twofold's own functions may publish in. Pure."""

POD_SOURCE = "/pod_events"
"""The source of pod events: with it their ids have a name space of their own."""


POD_TYPES = "pod."
"""What the types of pod events begin with."""


def is_reserved(source: str, event_type: str) -> bool:
    """Whether an event speaks in the name of the cluster."""
    return source == POD_SOURCE or event_type.startswith(POD_TYPES)
