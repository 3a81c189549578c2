"""The collection `pod_state`: the last observed state of each pod.

It is a working memory and never a source of truth. An unchanged pod costs one read because of it, and the listing finds
missing pods with it. Without it, `pod_events` reads more, and misses the deletions of pods that leave meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import UpdateOne

from twofold.event.model import Event
from twofold.mongo.client import Database, Document, driver_errors

FIRST_WAIT = timedelta(minutes=1)
"""The first wait for an existing, unlisted pod. A later wait is twice the wait before."""
LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class LastPodState:
    """The last observed state of a pod."""

    cluster: str
    pod_uid: str
    namespace: str
    name: str
    facts_digest: bytes
    """A digest of the facts in this state."""
    deletion: Event
    """The event of the pod's deletion, if this state stays the last one."""
    deleted: bool


class PodStates:
    """The collection `pod_state`. Every method raises `Unavailable` when MongoDB is unavailable."""

    def __init__(self, database: Database) -> None:
        self._pods = database["pod_state"]

    async def facts_digests(self, uids: Sequence[str]) -> dict[str, bytes]:
        """Return the `facts_digest` of the known pods, in a single read."""
        with driver_errors():
            found = self._pods.find({"_id": {"$in": list(uids)}}, {"facts": 1})
            return {document["_id"]: document["facts"] async for document in found}

    async def save(self, pods: Sequence[LastPodState]) -> None:
        """Save the states. A deleted pod stays deleted, even if an older state arrives late."""
        with driver_errors():
            await self._pods.bulk_write([_upsert(pod) for pod in pods], ordered=False)

    async def forget(self, uids: Sequence[str]) -> None:
        """Exclude these pods from the search for missing pods. MongoDB removes their states after an hour."""
        with driver_errors():
            living = {"_id": {"$in": list(uids)}, "gone_at": {"$exists": False}}
            await self._pods.update_many(living, {"$currentDate": {"gone_at": True}})

    async def living(self, cluster: str, after: str, now: datetime, limit: int) -> list[str]:
        """Return the uids of up to `limit` pods of a cluster that may be missing in a list, in the order of their uids.

        These pods are not known to be deleted, and their wait is over at `now`, the server's time. `after` is the last
        uid of the chunk before.
        """
        due = {
            "_id": {"$gt": after},
            "cluster": cluster,
            "gone_at": {"$exists": False},
            "next_look": {"$not": {"$gt": now}},
        }
        with driver_errors():
            found = self._pods.find(due, {"_id": 1}).sort("_id", 1).limit(limit)
            return [document["_id"] async for document in found]

    async def load(self, uids: Sequence[str]) -> list[LastPodState]:
        """Return the states of these pods."""
        if not uids:
            return []
        with driver_errors():
            return [_state_in(document) async for document in self._pods.find({"_id": {"$in": list(uids)}})]

    async def postpone(self, pod_uid: str) -> None:
        """Let an existing pod wait: until its next wait is over, a list without the pod is no reason to ask for it."""
        doubled = {"$multiply": [_milliseconds(FIRST_WAIT), {"$pow": [2, {"$ifNull": ["$looks", 0]}]}]}
        wait = {"$min": [_milliseconds(LONGEST_WAIT), doubled]}
        looks = {"$min": [10, {"$add": [{"$ifNull": ["$looks", 0]}, 1]}]}
        later = {"next_look": {"$add": ["$$NOW", wait]}, "looks": looks}
        with driver_errors():
            await self._pods.update_one({"_id": pod_uid}, [{"$set": later}])


def _upsert(pod: LastPodState) -> UpdateOne:
    fields = {
        "cluster": pod.cluster,
        "namespace": pod.namespace,
        "name": pod.name,
        "facts": pod.facts_digest,
        "deletion": pod.deletion.to_document(),
    }
    change: Document = {"$set": fields, "$unset": {"looks": "", "next_look": ""}}
    if pod.deleted:
        change["$currentDate"] = {"gone_at": True}
    return UpdateOne({"_id": pod.pod_uid}, change, upsert=True)


def _state_in(document: Document) -> LastPodState:
    return LastPodState(
        document["cluster"],
        document["_id"],
        document["namespace"],
        document["name"],
        document["facts"],
        Event.from_document(document["deletion"]),
        deleted="gone_at" in document,
    )


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
