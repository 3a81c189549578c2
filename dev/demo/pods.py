"""The demo's pods: the lives of the test fixtures, sent as by an ApiServerSource, and their events in MongoDB."""

from collections.abc import Mapping, Sequence
from typing import Any

from dev.api_server_source import LIVES as FOLDER
from dev.api_server_source import requests_of, send
from dev.database import Document
from twofold.event.reserved import POD_SOURCE

LIVES = sorted(FOLDER.glob("*.ndjson"))
OF_PODS: Document = {"metadata.service_name": POD_SOURCE}

SHOWN = "report-20-x7k2p"
"""The pod of the life `oom_killed`: the demo shows its timeline."""
FACTS = ("created", "scheduled", "initialized", "running", "container_terminated", "failed")
"""The event types of that pod, in the order of its life. A type comes once."""
SHOWN_FIELDS = ("node", "container", "cause", "exit_code", "signal", "reason")


def send_lives(sink: str) -> list[str]:
    """Send every state of every life twice. Return the requests that did not succeed at once."""
    requests = [request for _ in range(2) for life in LIVES for request in requests_of(life)]
    return [f"a pod's state: {outcome}" for outcome in send(sink, requests) if outcome != "200 after 1 tries"]


def complaints(events: Sequence[Document], event_store: Sequence[Document]) -> list[str]:
    """Return the pod events that the collections do not share, and wrong events of the shown pod."""
    here, there = (
        {document["_id"]: (document["digest"], document["order"]) for document in found}
        for found in (events, event_store)
    )
    alone = len(here.items() ^ there.items())
    types = [document["event_type"].removeprefix("pod.") for document in timeline(event_store)]
    failures = [f"pod events in one collection only, or with two digests or orders: {alone}"] if alone else []
    return failures if types == list(FACTS) else [*failures, f"events of pod {SHOWN}: {', '.join(types)}"]


def timeline(documents: Sequence[Document]) -> list[Document]:
    """Return the events of the shown pod, in the order of pages."""
    shown = [document for document in documents if document["payload"]["pod"] == SHOWN]
    return sorted(shown, key=lambda document: (document["timestamp"], document["order"]))


def line_of(event: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the time of day, the type, and the details of an event, for the timeline."""
    details = ", ".join(f"{name} {event['payload'][name]}" for name in SHOWN_FIELDS if name in event["payload"])
    return f"{event['timestamp']:%H:%M:%S}", event["event_type"], details
