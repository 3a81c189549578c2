"""The stack: servers, functions and stand-ins for the Knative sources, as one context manager."""

from dev.stack.options import Options
from dev.stack.stack import Stack

__all__ = ["Options", "Stack"]
