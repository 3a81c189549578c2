"""The facts of real pods, as both collections hold them."""

from dev.processes import wait_until
from tests.helpers import ARRIVES_WITHIN_S, View


def told(flow: View, collection: str, uid: str) -> list[str]:
    """The facts of a pod that a collection holds, in the order of their time, each with its cause."""
    documents = flow.database[collection].find({"payload.pod_uid": uid}).sort([("timestamp", 1), ("seq", 1)])
    return [
        " ".join([document["event_type"].removeprefix("pod."), *filter(None, [document["payload"].get("cause")])])
        for document in documents
    ]


def come_to_be(flow: View, uid: str, facts: list[str]) -> bool:
    """Whether `events` comes to hold exactly these facts of a pod, and the log the same events."""
    there = wait_until(lambda: sorted(told(flow, "events", uid)) == sorted(facts), within=ARRIVES_WITHIN_S, every=0.1)
    events = _digests(flow, "events", uid)
    return there and wait_until(
        lambda: _digests(flow, "event_store", uid) == events, within=ARRIVES_WITHIN_S, every=0.1
    )


def _digests(flow: View, collection: str, uid: str) -> dict[object, bytes]:
    return {found["_id"]: found["digest"] for found in flow.database[collection].find({"payload.pod_uid": uid})}
