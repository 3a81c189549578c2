"""The form of a log line."""

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import Context
from typing import Any

import pytest

from twofold.observability.context import EVENT_ID, REQUEST, TRACE_ID
from twofold.observability.logs import _Diversion, _Lines

pytestmark = pytest.mark.guarantee("R10")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def line(message: str = "hello", error: BaseException | None = None, **extra: Any) -> Any:
    """Return the line of a log record."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.getLogger("twofold.test").makeRecord(
        "twofold.test", logging.WARNING, __file__, 1, message, (), exc_info, extra=extra
    )
    text = _Lines("store", console=False).format(record)
    assert "\n" not in text
    return json.loads(text)


def line_about(headers: Mapping[str, str], event_id: str | None = None, trace_id: str | None = None) -> Any:
    """Return a line that is written during a request with these headers."""

    def write() -> Any:
        REQUEST.set({"headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
        EVENT_ID.set(event_id)
        TRACE_ID.set(trace_id)
        return line()

    return Context().run(write)


def test_a_line_is_a_json_object_with_the_standard_fields() -> None:
    fields = line("two\nlines", reason="malformed")
    assert fields.pop("timestamp").endswith("Z")
    assert fields == {
        "level": "warning",
        "logger": "twofold.test",
        "function": "store",
        "message": "two\nlines",
        "reason": "malformed",
    }


def test_a_line_holds_its_exception() -> None:
    fields = line(error=ValueError("broken"))
    assert fields["exception"] == "ValueError: broken"


def test_a_line_names_the_event_and_the_trace_of_the_request() -> None:
    fields = line_about({"ce-id": "order-7", "ce-traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert (fields["event_id"], fields["trace_id"]) == ("order-7", TRACE)


def test_the_events_own_trace_wins_over_the_requests_trace() -> None:
    other, own = (f"00-{trace}-00f067aa0ba902b7-01" for trace in ("1" * 32, TRACE))
    assert line_about({"traceparent": other, "ce-traceparent": own})["trace_id"] == TRACE
    assert line_about({"traceparent": other})["trace_id"] == "1" * 32


def test_an_invalid_trace_is_left_out() -> None:
    assert "trace_id" not in line_about({"traceparent": "not a traceparent, but a sentence of some length"})


def test_context_variables_win_over_the_headers() -> None:
    """A structured event has its id in the body, and a span may belong to another trace."""
    fields = line_about({"content-type": "application/cloudevents+json"}, "order-8", TRACE)
    assert (fields["event_id"], fields["trace_id"]) == ("order-8", TRACE)


def test_a_line_of_the_server_is_written_once_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The server gunicorn gives its logger another handler later."""
    ours = logging.StreamHandler(sys.stderr)
    ours.setFormatter(_Lines("store", console=False))
    server = logging.Logger("gunicorn.error")
    server.addFilter(_Diversion(ours))
    server.addHandler(logging.StreamHandler(sys.stderr))
    server.error("Listening at: %s", "http://127.0.0.1:8080")
    (written,) = capsys.readouterr().err.splitlines()
    assert json.loads(written)["message"] == "Listening at: http://127.0.0.1:8080"
    assert json.loads(written)["logger"] == "gunicorn.error"


def test_the_console_format_is_plain_text() -> None:
    record = logging.makeLogRecord({"name": "twofold.test", "msg": "hello", "levelname": "INFO"})
    text = _Lines("store", console=True).format(record)
    assert "hello" in text
    assert not text.startswith("{")
