"""The names that only Twofold's own functions may publish in. Pure."""

from twofold.event import Event

POD_SOURCE = "/pod_events"
"""The source of pod events: with it their ids have a name space of their own."""

POD_TYPES = "pod."
"""What the types of pod events begin with."""


def is_reserved(event: Event) -> bool:
    """Whether `event` speaks in the name of the cluster."""
    return event.metadata.service_name == POD_SOURCE or event.event_type.startswith(POD_TYPES)
