"""A stand-in for a Kubernetes API server with pods. It can be slow, lose pods in lists, and refuse requests.

`tests/cluster` has tests with a real API server.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from functions.pod_events.listing import JsonObject


@dataclass
class ApiServer:
    """The pods of the server, its faults, and the requests so far."""

    pods: dict[tuple[str, str], JsonObject] = field(default_factory=dict)
    """The pods by namespace and name."""
    hidden: set[str] = field(default_factory=set)
    """The names of pods missing in every list, as in a stale list or with a narrower selector."""
    forbidden: set[str] = field(default_factory=set)
    """The verbs, `list` or `get`, with the answer 403."""
    expired: set[str] = field(default_factory=set)
    """The tokens of pages with the answer 410. A token gets this answer once."""
    broken: set[str] = field(default_factory=set)
    """The verbs with a 404 of a proxy, which is no JSON."""
    failing: dict[str, int] = field(default_factory=dict)
    """The status of the answer to a verb. 0 closes the connection without an answer."""
    delay_s: float = 0.0
    """The seconds until an answer. A lower value also shortens the present waits."""
    asked: list[str] = field(default_factory=list)
    """The paths and queries of all requests."""
    delayed: list[str] = field(default_factory=list)
    """The paths of the requests that wait for `delay_s`."""
    url: str = ""

    def put(self, pod: JsonObject) -> None:
        """Add the pod, or replace the pod of its name."""
        self.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]] = pod

    def remove(self, pod: JsonObject) -> None:
        """Remove the pod."""
        del self.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]]

    def verb(self, target: str) -> str:
        """Return the verb of a GET of this path."""
        return "list" if urlsplit(target).path.endswith("/pods") else "get"

    def answer(self, target: str) -> tuple[int, JsonObject]:
        """Return status and body of the answer to a GET."""
        self.asked.append(target)
        self.delayed.append(target)
        began = time.monotonic()
        while time.monotonic() < began + self.delay_s:
            time.sleep(0.02)
        self.delayed.remove(target)
        parts = urlsplit(target)
        steps, query = (
            parts.path.strip("/").split("/"),
            {name: values[0] for name, values in parse_qs(parts.query).items()},
        )
        if self.verb(target) == "list":
            return self._list(steps[3] if "namespaces" in steps else "", query)
        return self._get(steps[3], steps[5])

    def _list(self, namespace: str, query: dict[str, str]) -> tuple[int, JsonObject]:
        if "list" in self.forbidden:
            return _status(403, "Forbidden")
        token = query.get("continue", "")
        if token in self.expired:
            self.expired.remove(token)
            return _status(410, "Expired", {"continue": token})
        start, limit = int(token or 0), int(query.get("limit", len(self.pods)))
        names = sorted(key for key in self.pods if key[1] not in self.hidden and namespace in ("", key[0]))
        names = [key for key in names if _chosen(self.pods[key], query.get("labelSelector", ""))]
        more = {"continue": str(start + limit)} if start + limit < len(names) else {}
        items = [
            {name: part for name, part in self.pods[key].items() if name not in ("apiVersion", "kind")}
            for key in names[start : start + limit]
        ]
        return 200, {
            "apiVersion": "v1",
            "kind": "PodList",
            "metadata": {"resourceVersion": "7", **more},
            "items": items,
        }

    def _get(self, namespace: str, name: str) -> tuple[int, JsonObject]:
        if "get" in self.forbidden:
            return _status(403, "Forbidden")
        found = self.pods.get((namespace, name))
        return (200, found) if found else _status(404, "NotFound")


def _chosen(pod: JsonObject, selector: str) -> bool:
    """Return True if the pod's labels match a selector of `name=value` and `name!=value`."""
    labels = pod["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        name, unlike, value = term.partition("!=") if "!=" in term else term.partition("=")
        if (labels.get(name) == value) == (unlike == "!="):
            return False
    return True


def _status(code: int, reason: str, metadata: JsonObject | None = None) -> tuple[int, JsonObject]:
    status = {"apiVersion": "v1", "kind": "Status", "metadata": metadata or {}, "status": "Failure"}
    return code, status | {"reason": reason, "code": code}


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """Run a server without pods on a free port."""
    served = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if (status := served.failing.get(served.verb(self.path))) is not None:
                self.close_connection = True
                if status:
                    self.send_error(status)
                return
            broken = served.verb(self.path) in served.broken
            code, answer = (404, {}) if broken else served.answer(self.path)
            body = b"no such page" if broken else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Write no log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
