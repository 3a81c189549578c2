"""A stand-in for a Kubernetes API server, over a socket: it lists pods in pages and gives them by name.

The real one is in `tests/cluster`; this one can be slow, forgetful and forbidding.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


@dataclass
class ApiServer:
    """What it has, how it behaves, and what it was asked."""

    pods: dict[tuple[str, str], Json] = field(default_factory=dict)
    """By name space and name."""
    hidden: set[str] = field(default_factory=set)
    """Names of pods that a list leaves out: as a stale one does, or a narrower selector."""
    forbidden: set[str] = field(default_factory=set)
    """The verbs, `list` and `get`, that are answered with 403."""
    expired: set[str] = field(default_factory=set)
    """Tokens to go on with that are answered with 410, once each."""
    broken: set[str] = field(default_factory=set)
    """The verbs that something between the two answers: with 404, and no JSON."""
    failing: dict[str, int] = field(default_factory=dict)
    """The status that a verb is answered with, or 0: the connection is closed without an answer."""
    delay_s: float = 0.0
    """How long a request waits for its answer; lowered, it ends sooner."""
    asked: list[str] = field(default_factory=list)
    """The paths of all requests, with their queries."""
    delayed: list[str] = field(default_factory=list)
    """The paths of those that are waiting for `delay_s`."""
    url: str = ""

    def put(self, pod: Json) -> None:
        """Have the pod, in place of another of its name."""
        self.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]] = pod

    def remove(self, pod: Json) -> None:
        """Have it no more."""
        del self.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]]

    def verb(self, target: str) -> str:
        """What a GET of that path asks for."""
        return "list" if urlsplit(target).path.endswith("/pods") else "get"

    def answer(self, target: str) -> tuple[int, Json]:
        """Status and body of the answer to a GET."""
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

    def _list(self, namespace: str, query: dict[str, str]) -> tuple[int, Json]:
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

    def _get(self, namespace: str, name: str) -> tuple[int, Json]:
        if "get" in self.forbidden:
            return _status(403, "Forbidden")
        found = self.pods.get((namespace, name))
        return (200, found) if found else _status(404, "NotFound")


def _chosen(pod: Json, selector: str) -> bool:
    """Whether its labels are as a selector of `name=value` and `name!=value` says."""
    labels = pod["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        name, unlike, value = term.partition("!=") if "!=" in term else term.partition("=")
        if (labels.get(name) == value) == (unlike == "!="):
            return False
    return True


def _status(code: int, reason: str, metadata: Json | None = None) -> tuple[int, Json]:
    status = {"apiVersion": "v1", "kind": "Status", "metadata": metadata or {}, "status": "Failure"}
    return code, status | {"reason": reason, "code": code}


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """One with no pods, on a free port."""
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

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Say nothing."""

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
