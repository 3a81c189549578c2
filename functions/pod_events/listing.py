"""What an ApiServerSource does not send: what was there before it, or happened while it was away, or got lost.

The pods are listed, and what their states show is published like what is sent. A pod that was seen and is not listed
is asked for by its name: only if the API server then says that it is not there, it is gone.
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
from twofold.write.publisher import Publisher

from .lifecycle import gone
from .pod_state import LastPodState, PodStates
from .watching import Ignored, PodState, Watcher

logger = logging.getLogger(__name__)

Json = dict[str, Any]

HOLD = timedelta(seconds=30)
"""How long a listing that died keeps others from it: less than the minute until the next ping."""
LOOKS = 500
"""How many pods are asked for by their names in one run: the others wait for the next."""
PIECE = 1000
"""How many of the pods that were seen are gone through at a time."""


class NotAllowed(Unavailable):
    """The service account has no right to ask this."""


class Page(NamedTuple):
    """Some pods, each as an ApiServerSource sends it, and what to ask for the next ones with: empty behind the last."""

    pods: list[Json]
    next: str


class Pods(Protocol):
    """The pods of a cluster. Both methods block, and raise `Unavailable`, or `NotAllowed`."""

    def page(self, after: str = "") -> Page:
        """The pods behind `after`."""
        ...

    def get(self, namespace: str, name: str) -> Json | None:
        """The pod of that name as it is now; None if the API server says that there is none."""
        ...


@dataclass(slots=True)
class Run:
    """What one run did, in pods."""

    listed: int = 0
    ignored: int = 0
    unreadable: int = 0
    """Kept as dead letters."""
    published: int = 0
    """Facts that were not known, deletions included."""
    gone: int = 0
    unlisted: int = 0
    """There, though they are not listed."""
    forbidden: int = 0
    """Not listed, and the service account may not ask for them."""
    unfinished: bool = False
    """The time for a run was over before everything was listed and looked for."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A run's turn: the lock, and when its time is over."""

    lock: Lock
    seconds: Callable[[], float]
    until: float

    async def goes_on(self, run: Run) -> bool:
        """Whether there is time to ask once more; the lock then is held long enough for it, or this raises."""
        if self.seconds() >= self.until:
            run.unfinished = True
            return False
        await self.lock.renew()
        return True


class Listing:
    """Publishes what is missing. One works at a time, by a lock, and for `budget_s`; `seconds` is a monotonic clock."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        watcher: Watcher,
        cluster: str,
        connect: Callable[[], Pods],
        *,
        budget_s: float,
        seconds: Callable[[], float],
    ) -> None:
        self._database = database
        self._seen = PodStates(database)
        self._publisher = publisher
        self._watcher = watcher
        self._cluster = cluster
        self._connect = connect
        self._pods: Pods | None = None
        self._budget_s = budget_s
        self._seconds = seconds

    async def run(self) -> Run | None:
        """List once; None if another is at it.

        Raises `Unavailable` when MongoDB or the API server is away, with what was listed so far published. A run begins
        at the first pod; those whose facts are known already take a read for each page.
        """
        async with hold_lock(self._database, f"pods of {self._cluster}", HOLD) as lock:
            if lock is None:
                return None
            turn, run = _Turn(lock, self._seconds, self._seconds() + self._budget_s), Run()
            if self._pods is None:
                self._pods = await asyncio.to_thread(self._connect)
            listed = await self._list(self._pods, turn, run)
            if run.unfinished:
                logger.warning("listing the pods takes more than %g s: none was looked for", self._budget_s)
            else:
                await self._look_for_others(self._pods, listed, turn, run)
            logger.info("pods listed", extra=asdict(run))
            return run

    async def _list(self, pods: Pods, turn: _Turn, run: Run) -> set[str]:
        """Publish what the pods show, one page in memory at a time. Returns the uids of all, unless time is over."""
        listed: set[str] = set()
        token = await self._list_page(pods, "", listed, run)
        while token and await turn.goes_on(run):
            token = await self._list_page(pods, token, listed, run)
        return listed

    async def _list_page(self, pods: Pods, token: str, listed: set[str], run: Run) -> str:
        page = await asyncio.to_thread(pods.page, token)
        listed.update(str((pod.get("metadata") or {}).get("uid")) for pod in page.pods)
        await self._publish(page.pods, run)
        return page.next

    async def _publish(self, page: list[Json], run: Run) -> None:
        run.listed += len(page)
        states: list[tuple[Json, PodState]] = []
        ignored: list[Ignored] = []
        for pod in page:
            try:
                state = self._watcher.state_of(pod)
            except Rejected as reason:
                await self._keep(pod, reason, run)
                continue
            if isinstance(state, Ignored):
                ignored.append(state)
            else:
                states.append((pod, state))
        run.ignored += len(ignored)
        await self._watcher.forget(ignored)
        try:
            run.published += await self._watcher.observe([state for _, state in states])
        except Rejected:  # one of them can't be taken: the others are, one by one
            for pod, state in states:
                await self._publish_one(pod, state, run)

    async def _publish_one(self, pod: Json, state: PodState, run: Run) -> None:
        try:
            run.published += await self._watcher.observe([state])
        except Rejected as reason:
            await self._keep(pod, reason, run)

    async def _keep(self, pod: Json, reason: Rejected, run: Run) -> None:
        run.unreadable += 1
        await self._watcher.keep([(b"content-type", b"application/json")], json.dumps(pod).encode(), reason)

    async def _look_for_others(self, pods: Pods, listed: set[str], turn: _Turn, run: Run) -> None:
        """Ask for those that were seen and are not listed: a list may be of an earlier moment, or a narrower choice."""
        now, after, looks = await server_time(self._database), "", 0
        while looks < LOOKS and (living := await self._seen.living(self._cluster, after, now, limit=PIECE)):
            after = living[-1]
            others = [uid for uid in living if uid not in listed][: LOOKS - looks]
            looks += len(others)
            for pod in await self._seen.read(others):
                if not await turn.goes_on(run):
                    return
                await self._look_for(pods, pod, run)

    async def _look_for(self, pods: Pods, pod: LastPodState, run: Run) -> None:
        try:
            found = await asyncio.to_thread(pods.get, pod.namespace, pod.name)
        except NotAllowed as error:  # nobody knows, so it counts as there
            if not run.forbidden:
                logger.warning("pods that are not listed can't be looked for: %s", error.detail)
            run.forbidden += 1
            await self._seen.postpone(pod.pod_uid)
            return
        if found is not None and found["metadata"]["uid"] == pod.pod_uid:
            run.unlisted += 1
            await self._seen.postpone(pod.pod_uid)
            return
        deletion = gone(pod.deletion, await server_time(self._database))
        run.published += await self._publisher.publish_observed([deletion])
        await self._seen.note([replace(pod, deleted=True)])
        run.gone += 1
