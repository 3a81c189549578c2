"""Logs: every line is a JSON object, from Twofold, from the server around it, and from libraries.

Modules log through the standard library, and pass more fields with `extra=`. A line has `timestamp`, `level`, `logger`,
`message` and `function`. During a request, a line also has the event's `event_id` and `trace_id`.
"""

import logging
import re
import sys
from functools import cached_property
from typing import TYPE_CHECKING

from twofold.errors import code_places, cut_text
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES
from twofold.observability.context import EVENT_ID, REQUEST, TRACE_ID
from twofold.settings import LogSettings

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger


_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-")

_TELLING = ("bson", "pydantic", "pydantic_core", "pymongo")
"""The packages whose errors quote values."""
_MAX_CAUSES = 5
_MAX_MESSAGE_CHARS = 500

_SERVERS = ("gunicorn.error", "gunicorn.access", "uvicorn.error", "uvicorn.access")


def write_logs(settings: LogSettings, function: str) -> None:
    """Make every logger of this process write to standard error. Call this function before gunicorn starts.

    `LOG_LEVEL` is the level of Twofold's own loggers. Libraries write warnings and errors only, because pymongo writes
    payloads at debug. The servers' level is `GUNICORN_LOG_LEVEL`, a variable of functions-framework.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(function, console=settings.log_format == "console"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("twofold").setLevel(settings.log_level)
    for name in _SERVERS:
        logging.getLogger(name).addFilter(_Diversion(handler))
    logging.captureWarnings(capture=True)


class _Diversion(logging.Filter):
    """Gives records to our handler only. gunicorn and uvicorn add handlers of their own after `write_logs`."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        self._handler.handle(record)
        return False


class _Lines(logging.Formatter):
    """structlog's formatter, made for the first line: the import of structlog takes a sixth of a function's start."""

    def __init__(self, function: str, *, console: bool) -> None:
        super().__init__()
        self._function = function
        self._console = console

    @cached_property
    def _formatter(self) -> logging.Formatter:
        return _structlog_formatter(self._function, console=self._console)

    def format(self, record: logging.LogRecord) -> str:
        return self._formatter.format(record)


def _structlog_formatter(function: str, *, console: bool) -> logging.Formatter:
    import structlog  # noqa: PLC0415 - see `_Lines`

    def name_function(_: "WrappedLogger", __: str, line: "EventDict") -> "EventDict":
        line["function"] = function
        return line

    output: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=False)]
        if console
        else [
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    )
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            name_function,
            _name_event,
            structlog.stdlib.ExtraAdder(),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _write_exception,
            *output,
        ]
    )


def _write_exception(_: "WrappedLogger", __: str, line: "EventDict") -> "EventDict":
    """Replace `exc_info` by `exception`: the classes, the places in the code and short messages.

    A message of pymongo, bson or pydantic can hold whole payloads, so it is left out.
    """
    exc_info = line.pop("exc_info", None)
    error = exc_info if isinstance(exc_info, BaseException) else exc_info[1] if exc_info else None
    texts: list[str] = []
    while error is not None and len(texts) < _MAX_CAUSES:
        about = type(error)
        message = "" if about.__module__.partition(".")[0] in _TELLING else cut_text(str(error), _MAX_MESSAGE_CHARS)
        named = f"{about.__name__}: {message}" if message else about.__name__
        texts.append("\n".join(filter(None, [code_places(error), named])))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if texts:
        line["exception"] = "\n\ncaused by\n\n".join(texts)
    return line


def _name_event(_: "WrappedLogger", __: str, line: "EventDict") -> "EventDict":
    """Add the event's `event_id` and `trace_id` to a line."""
    scope = REQUEST.get()
    headers: dict[bytes, bytes] = dict(scope["headers"]) if scope else {}
    traceparent = _TRACEPARENT.match(headers.get(b"ce-traceparent") or headers.get(b"traceparent") or b"")
    event_id = EVENT_ID.get() or headers.get(b"ce-id", b"")[:MAX_ATTRIBUTE_BYTES].decode("latin-1")
    trace_id = TRACE_ID.get() or (traceparent[1].decode() if traceparent else "")
    line.update({name: value for name, value in (("event_id", event_id), ("trace_id", trace_id)) if value})
    return line
