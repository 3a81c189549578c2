"""The stand-in for ApiServerSource sends, and loses, the same events as the source."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration, CoreV1Api

from dev.api_server_source import LIVES, request_of, requests_of, send, watched
from dev.paths import ROOT
from dev.process.child import plain_environment
from tests.helpers import View
from tests.pods import first_observed, life, new_life

pytestmark = [pytest.mark.dev, pytest.mark.slow]

Answered = list[tuple[dict[str, str], bytes]]


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[str, Answered]]:
    """Serve a sink that answers with these statuses and repeats the last. Yield its address and its requests."""
    sent: Answered = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(statuses[min(len(sent), len(statuses)) - 1])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Log no requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()


def test_a_state_has_a_new_id_each_time() -> None:
    first, second = (requests_of(LIVES / "exit_1.ndjson") for _ in range(2))
    assert len({request.headers["ce-id"] for request in [*first, *second]}) == 2 * len(life("exit_1"))
    assert [request.body for request in first] == [request.body for request in second]


def test_it_makes_the_request_of_the_source_for_a_change() -> None:
    """The real adapter sent the requests of the fixtures."""
    sent = life("deleted_while_running")[-1]
    made = request_of("DELETED", sent.pod, sent.headers["ce-source"])
    differ = {"ce-id", "ce-time", "kn-namespace"}
    assert {name: value for name, value in made.headers.items() if name not in differ} == {
        name: value for name, value in sent.headers.items() if name not in differ
    }
    assert json.loads(made.body) == sent.pod


@pytest.mark.parametrize(
    ("statuses", "tries"), [((200,), 1), ((503, 429, 200), 3), ((500,), 1), ((400,), 1), ((503,), 6), ((404,), 6)]
)
def test_it_retries_the_statuses_of_the_source(statuses: tuple[int, ...], tries: int) -> None:
    with answering(*statuses) as (sink, sent):
        (outcome,) = send(sink, requests_of(LIVES / "no_status.ndjson"))
        assert outcome == f"{statuses[-1]} after {tries} tries"
        assert len(sent) == tries
        assert len({headers["ce-id"] for headers, _ in sent}) == 1


@pytest.mark.guarantee("G6")
def test_it_feeds_pod_events_with_lives(flow: View, tmp_path: Path) -> None:
    """`make dev` starts it in the same way."""
    states = new_life("oom_killed")
    lines = [json.dumps({"headers": state.headers, "body": state.pod}) for state in states]
    (tmp_path / "oom_killed.ndjson").write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        "-m",
        "dev.api_server_source",
        "--sink",
        flow.stack.pod_events_url,
        "--lives",
        str(tmp_path),
    ]
    run = subprocess.run(
        command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.splitlines() == ["200 after 1 tries"] * len(states)
    found = flow.database.events.find({"payload.pod_uid": states[0].uid})
    assert {document["_id"] for document in found} == first_observed(states).keys()


class Watched:
    """An API server with a list, and with watches that send changes and end."""

    def __init__(self, *watches: list[dict[str, Any]]) -> None:
        self.watches = list(watches)
        self.asked: list[str] = []

    @contextmanager
    def served(self) -> Iterator[CoreV1Api]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                if "watch" not in self.path:
                    pods = {"metadata": {"resourceVersion": "7"}, "items": [life("no_status")[0].pod]}
                    self.wfile.write(json.dumps(pods).encode())
                    return
                for change in outer.watches.pop(0) if outer.watches else []:
                    self.wfile.write(json.dumps(change).encode() + b"\n")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                """Log no requests."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                with ApiClient(Configuration(host=f"http://127.0.0.1:{server.server_port}")) as client:
                    yield CoreV1Api(client)
            finally:
                server.shutdown()
                thread.join()


def change(type_: str, version: str) -> dict[str, Any]:
    pod = life("no_status")[0].pod
    return {"type": type_, "object": pod | {"metadata": pod["metadata"] | {"resourceVersion": version}}}


def test_its_first_list_sends_nothing_and_changes_do() -> None:
    server = Watched([change("ADDED", "8"), change("BOOKMARK", "9"), change("MODIFIED", "10"), change("DELETED", "11")])
    with server.served() as api:
        types = [request.headers["ce-type"].rpartition(".")[2] for request in islice(watched(api, "app=web"), 3)]
    assert types == ["add", "update", "delete"]
    assert [("watch" in path, "labelSelector=app%3Dweb" in path) for path in server.asked] == [
        (False, True),
        (True, True),
    ]


def test_an_ended_watch_goes_on_and_an_expired_watch_lists_again_without_events() -> None:
    expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
    server = Watched([change("ADDED", "8")], [expired], [change("MODIFIED", "9")])
    with server.served() as api:
        assert len(list(islice(watched(api, ""), 2))) == 2
    assert ["resourceVersion=8" in path for path in server.asked] == [False, False, True, False, False]
    assert ["watch" in path for path in server.asked] == [False, True, True, False, True]
