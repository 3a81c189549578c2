"""The events of real pods in both collections."""

from dev.process.child import wait_until
from tests.helpers import ARRIVES_WITHIN_S, View
from twofold.mongo.client import Document

SHOWN = ("container", "restart", "cause", "exit_code", "observed")


def told(flow: View, collection: str, uid: str) -> list[str]:
    """Return a pod's events in a collection by time and `order`, each as its type and main fields."""
    documents = flow.database[collection].find({"payload.pod_uid": uid}).sort([("timestamp", 1), ("order", 1)])
    return [_line(document) for document in documents]


def _line(document: Document) -> str:
    shown = [str(document["payload"][name]) for name in SHOWN if name in document["payload"]]
    return " ".join([document["event_type"].removeprefix("pod."), *shown])


def come_to_be(flow: View, uid: str, facts: list[str]) -> bool:
    """Return True if `events` comes to hold exactly these events of a pod in this order, and the log equal events."""
    there = wait_until(lambda: told(flow, "events", uid) == facts, within=ARRIVES_WITHIN_S, every=0.1)
    events = _digests(flow, "events", uid)
    return there and wait_until(
        lambda: _digests(flow, "event_store", uid) == events, within=ARRIVES_WITHIN_S, every=0.1
    )


def _digests(flow: View, collection: str, uid: str) -> dict[object, bytes]:
    return {found["_id"]: found["digest"] for found in flow.database[collection].find({"payload.pod_uid": uid})}
