"""TODO module."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

EVENT_ID: ContextVar[str | None] = ContextVar("event_id", default=None)
"""The `id` of the event that is being worked on, where the request's headers don't have it: for the logs."""


TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""The trace that it belongs to, where the request's headers don't have it."""


Scope = Mapping[str, Any]


REQUEST: ContextVar[Scope | None] = ContextVar("request", default=None)
"""The ASGI scope of the request that is being worked on. Its headers are read only if something is logged."""
