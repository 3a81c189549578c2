"""ApiServerSource's stand-in: `python -m dev.api_server_source` sends the states of pods to `pod_events`.

It keeps the rules of the source in Resource mode: a fresh UUID each time, one request after the other, the short retry
list of `dev.adapter`, and nothing for its first list, nor for one that it has to make again. Its pods are those of a
real API server (`--kubeconfig`), or lives from files (`--lives`), sent once from the first state to the last.
"""

import argparse
import json
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from urllib3.exceptions import HTTPError

from dev.adapter import deliver
from dev.paths import ROOT

LIVES = ROOT / "tests" / "fixtures" / "pods"
"""A file for each life, named for what happens in it, with a request of the source on each line."""

CHANGES = {"ADDED": "add", "MODIFIED": "update", "DELETED": "delete"}
AGAIN_S = 1.0
"""How long it waits before it lists again, after the API server went away."""

Pod = Mapping[str, Any]


class Request(NamedTuple):
    """What is posted."""

    headers: dict[str, str]
    body: bytes


def requests_of(life: Path) -> list[Request]:
    """The requests of one life, each as if sent now."""
    lines = map(json.loads, life.read_text().splitlines())
    return [Request(line["headers"] | _now(), json.dumps(line["body"]).encode()) for line in lines]


def request_of(change: str, pod: Pod, source: str) -> Request:
    """What the source makes of a change that a watch tells of: `ADDED`, `MODIFIED` or `DELETED`."""
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
        "kn-namespace": "local",  # the source's own
    }
    return Request(headers | _now(), json.dumps(pod).encode())


def _now() -> dict[str, str]:
    return {"ce-id": str(uuid.uuid4()), "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def watched(api: CoreV1Api, selector: str) -> Iterator[Request]:
    """The requests for what happens to the pods from now on, for ever. What happens while it lists is lost."""
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
    """Changes from `version` on. A watch that ends is taken up where it ended, until that is too old."""
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


def send(sink: str, requests: Iterable[Request]) -> Iterator[str]:
    """Post one after the other; what became of each."""
    with httpx.Client(timeout=60.0, trust_env=False) as client:
        for request in requests:
            yield deliver(client, sink, request.headers, request.body)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sink", required=True)
    parser.add_argument("--kubeconfig", help="watch the pods of this API server")
    parser.add_argument("--selector", default="", help="and of those only the ones with these labels")
    parser.add_argument("--lives", type=Path, default=LIVES, help="without it: the folder with pods' lives")
    options = parser.parse_args(sys.argv[1:])
    if options.kubeconfig:
        requests = watched(CoreV1Api(new_client_from_config(options.kubeconfig)), options.selector)  # type: ignore[no-untyped-call]  # kubernetes.config has no types
    else:
        requests = (request for life in sorted(options.lives.glob("*.ndjson")) for request in requests_of(life))
    for outcome in send(options.sink, requests):
        print(outcome, flush=True)


if __name__ == "__main__":
    main()
