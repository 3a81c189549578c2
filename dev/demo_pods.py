"""The demo's pods: lives of the test fixtures, sent as by an ApiServerSource, and what the collections have of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from dev.api_server_source import LIVES as FOLDER
from dev.api_server_source import requests_of, send
from twofold.event.reserved import POD_SOURCE

Document = dict[str, Any]

LIVES = sorted(FOLDER.glob("*.ndjson"))
OF_PODS: Document = {"metadata.service_name": POD_SOURCE}
PUBLISHED: Document = {"metadata.service_name": {"$ne": POD_SOURCE}}

SHOWN = "report-20-x7k2p"
"""The pod whose timeline is shown: that of the life `oom_killed`."""
FACTS = ("created", "scheduled", "initialized", "running", "container_terminated", "failed")
"""What happens in it, once each."""
TOLD = ("node", "container", "cause", "exit_code", "signal", "reason")
"""What is shown of a payload."""


def send_lives(sink: str) -> list[str]:
    """Send every state of every life, and all of them once more; what was not taken at once."""
    requests = [request for _ in range(2) for life in LIVES for request in requests_of(life)]
    return [f"a pod's state: {outcome}" for outcome in send(sink, requests) if outcome != "200 after 1 tries"]


def findings(projected: Sequence[Document], logged: Sequence[Document]) -> list[str]:
    """What is wrong: pod events that the collections don't share, facts of the shown pod that are not there once."""
    here, there = ({document["_id"]: document["digest"] for document in documents} for documents in (projected, logged))
    alone = len(here.items() ^ there.items())
    types = [document["event_type"].removeprefix("pod.") for document in of_shown_pod(logged)]
    off = [f"pod events in one collection alone, or differing: {alone}"] if alone else []
    return off if sorted(types) == sorted(FACTS) else [*off, f"facts of the pod {SHOWN}: {', '.join(types)}"]


def of_shown_pod(documents: Sequence[Document]) -> list[Document]:
    """The events of the shown pod, by their times."""
    shown = [document for document in documents if document["payload"]["pod"] == SHOWN]
    return sorted(shown, key=lambda document: (document["timestamp"], document["seq"]))


def line_of(event: Mapping[str, Any]) -> tuple[str, str, str]:
    """An event as a timeline shows it: the time of day, the type, and what tells it from others."""
    said = {name: event["payload"][name] for name in TOLD if name in event["payload"]}
    return f"{event['timestamp']:%H:%M:%S}", event["event_type"], ", ".join(f"{k} {v}" for k, v in said.items())
