"""An HTTP sink that records an adapter's requests."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dev.process.child import wait_until

ARRIVES_WITHIN_S = 30.0


@dataclass(frozen=True)
class SinkRequest:
    """A request: its headers with lower-case names, its body, and the status of its answer."""

    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def type(self) -> str:
        """The CloudEvent's type."""
        return self.headers["ce-type"]

    @property
    def object(self) -> dict[str, Any]:
        """The Kubernetes object that the event carries."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class Sink:
    """The requests so far, in their order."""

    def __init__(self) -> None:
        self.received: list[SinkRequest] = []
        self.statuses: dict[str, int] = {}
        """The status of answers by the object's name. The default is 200."""
        self.url = ""

    def of(self, name: str) -> list[SinkRequest]:
        """Return the requests about the object with this name."""
        return [request for request in self.received if request.headers.get("ce-name") == name]

    def types(self, name: str) -> list[str]:
        """Return the last words of these requests' types: add, update, delete."""
        return [request.type.rpartition(".")[2] for request in self.of(name)]

    def await_requests(self, check: Callable[[], bool]) -> bool:
        """Return True if `check` becomes true within 30 s."""
        return wait_until(check, within=ARRIVES_WITHIN_S, every=0.05)


@contextmanager
def recording() -> Iterator[Sink]:
    """Run a sink on a free port for the time of the block."""
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = sink.statuses.get(headers.get("ce-name", ""), 200)
            sink.received.append(SinkRequest(headers, body, status))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class has this name
            """Log no request: `received` has it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink.url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    try:
        yield sink
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
