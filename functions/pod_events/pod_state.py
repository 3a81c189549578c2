"""Which pods were seen, and how each was last: the working memory of `pod_events`, small, and never a source of truth.

It makes an unchanged pod cost one read, and tells the listing which pods are not there any more. Losing all of it
costs reads, and the deletions of pods that went meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import UpdateOne

from twofold.event.model import Event
from twofold.mongo.client import Database, Document, driver_errors

FIRST_WAIT = timedelta(minutes=1)


LONGEST_WAIT = timedelta(hours=1)
"""How long until a pod that is there, but is not listed, is looked for again: each wait is twice the one before."""


@dataclass(frozen=True, slots=True)
class LastPodState:
    """A pod as it was last seen."""

    cluster: str
    pod_uid: str
    namespace: str
    name: str
    facts: bytes
    """What tells its facts from those of another state."""
    deletion: Event
    """The event that tells of its deletion, should nothing more be seen of it."""
    deleted: bool


class PodStates:
    """The collection `pod_state`. Every method raises `Unavailable` when MongoDB is away."""

    def __init__(self, database: Database) -> None:
        self._seen = database["pod_state"]

    async def facts(self, uids: Sequence[str]) -> dict[str, bytes]:
        """The `facts` of those pods that were seen, in one read."""
        with driver_errors():
            found = self._seen.find({"_id": {"$in": list(uids)}}, {"facts": 1})
            return {document["_id"]: document["facts"] async for document in found}

    async def note(self, pods: Sequence[LastPodState]) -> None:
        """Remember how the pods are now. One that was deleted stays so, whatever older state of it comes late."""
        with driver_errors():
            await self._seen.bulk_write([_noted(pod) for pod in pods], ordered=False)

    async def forget(self, uids: Sequence[str]) -> None:
        """Look for these pods no more, as if they were gone; should they be watched again, from an hour later on."""
        with driver_errors():
            known = {"_id": {"$in": list(uids)}, "gone_at": {"$exists": False}}
            await self._seen.update_many(known, {"$currentDate": {"gone_at": True}})

    async def living(self, cluster: str, after: str, now: datetime, limit: int) -> list[str]:
        """The uids of a cluster's next `limit` pods that are not known to be gone, and may be looked for at `now`.

        `now` is the server's time. In their order, for going through all in pieces.
        """
        due = {
            "_id": {"$gt": after},
            "cluster": cluster,
            "gone_at": {"$exists": False},
            "next_look": {"$not": {"$gt": now}},
        }
        with driver_errors():
            found = self._seen.find(due, {"_id": 1}).sort("_id", 1).limit(limit)
            return [document["_id"] async for document in found]

    async def read(self, uids: Sequence[str]) -> list[LastPodState]:
        """Those pods as they were last seen."""
        if not uids:
            return []
        with driver_errors():
            return [_seen(document) async for document in self._seen.find({"_id": {"$in": list(uids)}})]

    async def postpone(self, pod_uid: str) -> None:
        """The pod is there, though it is not listed: look for it again later, by the server's time."""
        doubled = {"$multiply": [_milliseconds(FIRST_WAIT), {"$pow": [2, {"$ifNull": ["$looks", 0]}]}]}
        wait = {"$min": [_milliseconds(LONGEST_WAIT), doubled]}
        looks = {"$min": [10, {"$add": [{"$ifNull": ["$looks", 0]}, 1]}]}
        later = {"next_look": {"$add": ["$$NOW", wait]}, "looks": looks}
        with driver_errors():
            await self._seen.update_one({"_id": pod_uid}, [{"$set": later}])


def _noted(pod: LastPodState) -> UpdateOne:
    fields = {
        "cluster": pod.cluster,
        "namespace": pod.namespace,
        "name": pod.name,
        "facts": pod.facts,
        "deletion": pod.deletion.to_document(),
    }
    change: Document = {"$set": fields, "$unset": {"looks": "", "next_look": ""}}
    if pod.deleted:
        change["$currentDate"] = {"gone_at": True}
    return UpdateOne({"_id": pod.pod_uid}, change, upsert=True)


def _seen(document: Document) -> LastPodState:
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
