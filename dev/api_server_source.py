"""A stand-in for ApiServerSource: `python -m dev.api_server_source` sends the states of pods to `pod_events`.

It keeps the rules of the source in Resource mode: a new UUID for every request, one request after the other, and the
short retries of `dev.adapter`. It sends no events for its first list of pods, nor for a later list. Its pods come from
a real API server (`--kubeconfig`), or from files (`--lives`), which it sends once from the first state to the last.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from urllib3.exceptions import HTTPError

from dev.adapter import deliver
from dev.load.events import EventRequest
from dev.paths import ROOT

LIVES = ROOT / "tests" / "fixtures" / "pods"
"""A file for each life, named for its story, with a request of the source on each line."""

CHANGES = {"ADDED": "add", "MODIFIED": "update", "DELETED": "delete"}
AGAIN_S = 1.0
"""Seconds before the next list after a failure of the API server."""

Pod = Mapping[str, Any]


def requests_of(life: Path) -> list[EventRequest]:
    """Return the requests of a life, each with a new id and the current time."""
    lines = map(json.loads, life.read_text().splitlines())
    return [EventRequest(line["headers"] | _now(), json.dumps(line["body"]).encode()) for line in lines]


def request_of(change: str, pod: Pod, source: str) -> EventRequest:
    """Return the source's request for a change in a watch: `ADDED`, `MODIFIED` or `DELETED`."""
    meta = pod["metadata"]
    headers = {
        "ce-specversion": "1.0",
        "ce-type": f"dev.knative.apiserver.resource.{CHANGES[change]}",
        "ce-source": source,
        "ce-subject": f"/apis/v1/namespaces/{meta['namespace']}/pods/{meta['name']}",
        "ce-kind": "Pod",
        "ce-apiversion": "v1",
        "ce-name": meta["name"],
        "ce-namespace": meta["namespace"],
        "content-type": "application/json",
        "kn-namespace": "local",  # the namespace of the source
    }
    return EventRequest(headers | _now(), json.dumps(pod).encode())


def _now() -> dict[str, str]:
    return {"ce-id": str(uuid.uuid4()), "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def watched(api: CoreV1Api, selector: str) -> Iterator[EventRequest]:
    """Yield the requests for the changes of the pods, for ever. Changes during a list are lost."""
    source = api.api_client.configuration.host
    while True:
        try:
            version = _newest(api, selector)
            print("watching", flush=True)
            for change, pod in _changes(api, selector, version):
                yield request_of(change, pod, source)
        except (ApiException, HTTPError, OSError) as error:
            print(f"listing again: {type(error).__name__}", flush=True)
            time.sleep(AGAIN_S)


def _newest(api: CoreV1Api, selector: str) -> str:
    answer: Any = api.list_pod_for_all_namespaces(label_selector=selector or None, limit=1, _preload_content=False)
    version: str = json.loads(answer.data)["metadata"]["resourceVersion"]
    return version


def _changes(api: CoreV1Api, selector: str, version: str) -> Iterator[tuple[str, Pod]]:
    """Yield the changes after `version`. An ended watch starts again at its last version, until that is too old."""
    while True:
        answer: Any = api.list_pod_for_all_namespaces(
            watch=True,
            allow_watch_bookmarks=True,
            label_selector=selector or None,
            resource_version=version,
            _preload_content=False,
        )
        for line in _lines(answer.stream(amt=None, decode_content=True)):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] in CHANGES:
                yield event["type"], event["object"]


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def send(sink: str, requests: Iterable[EventRequest]) -> Iterator[str]:
    """Post the requests in turn, and yield the outcomes."""
    with httpx.Client(timeout=60.0, trust_env=False) as client:
        for request in requests:
            yield deliver(client, sink, request.headers, request.body)


def main(
    sink: Annotated[str, typer.Option()],
    kubeconfig: Annotated[str | None, typer.Option(help="watch the pods of this API server")] = None,
    selector: Annotated[str, typer.Option(help="watch only the pods with these labels")] = "",
    lives: Annotated[Path, typer.Option(help="without --kubeconfig: the folder with pods' lives")] = LIVES,
) -> None:
    """Send the states of pods to a sink as an ApiServerSource does."""
    if kubeconfig:
        requests = watched(CoreV1Api(new_client_from_config(kubeconfig)), selector)  # type: ignore[no-untyped-call]  # kubernetes.config has no types
    else:
        requests = (request for life in sorted(lives.glob("*.ndjson")) for request in requests_of(life))
    for outcome in send(sink, requests):
        print(outcome, flush=True)


if __name__ == "__main__":
    typer.run(main)
