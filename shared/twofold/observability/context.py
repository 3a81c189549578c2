"""The request that this task works on: context variables for the logs."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

Scope = Mapping[str, Any]

REQUEST: ContextVar[Scope | None] = ContextVar("request", default=None)
"""The ASGI scope of the request. A log line reads the event's id and trace from its headers."""
EVENT_ID: ContextVar[str | None] = ContextVar("event_id", default=None)
"""The `id` of the event, if the request's headers do not have it."""
TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""The trace of the event, if the request's headers do not have it."""
