"""The listing: it finds the facts that an ApiServerSource did not deliver.

The source sends nothing for pods that existed before it started. It drops events when it stops or when its sink does
not answer. So the pods are listed every minute, and their facts are published like delivered facts.

A list can miss a living pod: it may be stale, or the selector may be narrower than before. So a known pod that is not
listed is requested by its name. Only if the API server answers that no such pod exists, `pod.deleted` is published.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from twofold.errors import Rejected, Unavailable
from twofold.mongo.client import Database
from twofold.mongo.lock import Lock, hold_lock
from twofold.mongo.safe_time import server_time
from twofold.write.decoding import in_decoding_thread
from twofold.write.publisher import Publisher

from .lifecycle import reconciled_deletion
from .pod_state import LastPodState, PodStates
from .watching import IgnoredPod, ObservedPod, PodWatcher

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]

LOCK_HOLD = timedelta(seconds=30)
"""The lock of a process is free this long after its death: less than the minute between two pings."""
MAX_GETS = 500
"""The largest number of pods requested by name in a run. The next run continues."""
CHUNK_PODS = 1000
"""The number of known pods in one read."""


class NotAllowed(Unavailable):
    """The service account lacks the permission for a request."""


class PodPage(NamedTuple):
    """A page of pods in the form of an ApiServerSource, with the token of the next page; empty after the last page."""

    pods: list[JsonObject]
    next: str


class PodApi(Protocol):
    """The pods of a cluster. Both methods block, and raise `Unavailable` or `NotAllowed`."""

    def page(self, after: str = "") -> PodPage:
        """Return the pods behind the token `after`."""
        ...

    def get(self, namespace: str, name: str) -> JsonObject | None:
        """Return the present pod of this name, or None if the API server answers `NotFound`."""
        ...


@dataclass(slots=True)
class ListingRun:
    """The result of a run, in numbers of pods."""

    listed: int = 0
    ignored: int = 0
    unreadable: int = 0
    """Kept as dead letters."""
    published: int = 0
    """New facts, deletions included."""
    gone: int = 0
    unlisted: int = 0
    """Existing pods outside the list."""
    forbidden: int = 0
    """Pods outside the list, where the service account lacks the permission to ask."""
    unfinished: bool = False
    """The run ended before every pod was listed and every missing pod was requested."""


@dataclass(frozen=True, slots=True)
class _Budget:
    """The lock and the time of a run."""

    lock: Lock
    seconds: Callable[[], float]
    until: float

    async def renew(self, run: ListingRun) -> bool:
        """Hold the lock for one more request, and return True; False when the time is over. Raises `Unavailable`."""
        if self.seconds() >= self.until:
            run.unfinished = True
            return False
        await self.lock.renew()
        return True


class Listing:
    """Publishes missing facts. A lock lets one listing run at a time, for up to `budget_s` seconds.

    `seconds` is a monotonic clock. `connect` opens the Kubernetes API at the first run.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        watcher: PodWatcher,
        cluster: str,
        connect: Callable[[], PodApi],
        *,
        budget_s: float,
        seconds: Callable[[], float],
    ) -> None:
        self._database = database
        self._pod_states = PodStates(database)
        self._publisher = publisher
        self._watcher = watcher
        self._cluster = cluster
        self._connect = connect
        self._api: PodApi | None = None
        self._budget_s = budget_s
        self._seconds = seconds

    async def run(self) -> ListingRun | None:
        """List all pods, then request the missing ones. Return None if another listing is running.

        Every run begins at the first pod. A page without new facts costs one read. Raises `Unavailable` when MongoDB
        or the API server is unavailable; the facts of the earlier pages are published by then.
        """
        async with hold_lock(self._database, f"pods of {self._cluster}", LOCK_HOLD) as lock:
            if lock is None:
                return None
            budget, run = _Budget(lock, self._seconds, self._seconds() + self._budget_s), ListingRun()
            if self._api is None:
                self._api = await asyncio.to_thread(self._connect)
            listed = await self._list(self._api, budget, run)
            if run.unfinished:
                logger.warning(
                    "the listing of pods did not end within %g s, and requested no missing pods: "
                    "raise PODS_BUDGET_S or PODS_PAGE",
                    self._budget_s,
                )
            else:
                await self._find_missing(self._api, listed, budget, run)
            logger.info("pods listed", extra=asdict(run))
            return run

    async def _list(self, api: PodApi, budget: _Budget, run: ListingRun) -> set[str]:
        """Publish the facts of all pods, page by page. Return the uids of the listed pods."""
        listed: set[str] = set()
        token = await self._list_page(api, "", listed, run)
        while token and await budget.renew(run):
            token = await self._list_page(api, token, listed, run)
        return listed

    async def _list_page(self, api: PodApi, token: str, listed: set[str], run: ListingRun) -> str:
        page = await asyncio.to_thread(api.page, token)
        listed.update(str((pod.get("metadata") or {}).get("uid")) for pod in page.pods)
        await self._publish(page.pods, run)
        return page.next

    async def _publish(self, page: list[JsonObject], run: ListingRun) -> None:
        """Publish the facts of a page. A pod that is rejected, or that raises an unexpected error, harms no other."""
        run.listed += len(page)
        pods: list[tuple[JsonObject, ObservedPod]] = []
        ignored: list[IgnoredPod] = []
        observations = await in_decoding_thread(lambda: [self._observe(pod) for pod in page])
        for pod, observed in zip(page, observations, strict=True):
            if isinstance(observed, Rejected):
                await self._keep(pod, observed, run)
            elif isinstance(observed, IgnoredPod):
                ignored.append(observed)
            else:
                pods.append((pod, observed))
        run.ignored += len(ignored)
        await self._watcher.forget(ignored)
        try:
            run.published += await self._watcher.publish([observed for _, observed in pods])
        except Rejected:  # one pod of the page is rejected: publish the pods one by one
            for pod, observed in pods:
                await self._publish_one(pod, observed, run)

    def _observe(self, pod: JsonObject) -> ObservedPod | IgnoredPod | Rejected:
        try:
            return self._watcher.observe(pod)
        except Rejected as reason:
            return reason

    async def _publish_one(self, pod: JsonObject, observed: ObservedPod, run: ListingRun) -> None:
        try:
            run.published += await self._watcher.publish([observed])
        except Rejected as reason:
            await self._keep(pod, reason, run)

    async def _keep(self, pod: JsonObject, reason: Rejected, run: ListingRun) -> None:
        run.unreadable += 1
        await self._watcher.keep([(b"content-type", b"application/json")], json.dumps(pod).encode(), reason)

    async def _find_missing(self, api: PodApi, listed: set[str], budget: _Budget, run: ListingRun) -> None:
        """Request up to `MAX_GETS` known pods outside the list."""
        now, after, gets = await server_time(self._database), "", 0
        while gets < MAX_GETS and (
            living := await self._pod_states.living(self._cluster, after, now, limit=CHUNK_PODS)
        ):
            after = living[-1]
            missing = [uid for uid in living if uid not in listed][: MAX_GETS - gets]
            gets += len(missing)
            for pod in await self._pod_states.load(missing):
                if not await budget.renew(run):
                    return
                await self._check_missing(api, pod, run)

    async def _check_missing(self, api: PodApi, pod: LastPodState, run: ListingRun) -> None:
        try:
            found = await asyncio.to_thread(api.get, pod.namespace, pod.name)
        except NotAllowed as error:  # without an answer the pod counts as existing
            if not run.forbidden:
                logger.warning("cannot request pods that are not listed: %s", error.detail)
            run.forbidden += 1
            await self._pod_states.postpone(pod.pod_uid)
            return
        if found is not None and found["metadata"]["uid"] == pod.pod_uid:
            run.unlisted += 1
            await self._pod_states.postpone(pod.pod_uid)
            return
        deletion = reconciled_deletion(pod.deletion, await server_time(self._database))
        run.published += await self._publisher.publish_observed([deletion])
        await self._pod_states.save([replace(pod, deleted=True)])
        run.gone += 1
