"""The injector: it starts one fault of the plan after the other, and lets up to two last at the same time."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from dev.faults.kinds import Kind
from dev.faults.plan import PlannedFault
from dev.faults.site import Site

AT_ONCE = 2


class Injector:
    """Injects faults. `done` counts the mended faults by name."""

    def __init__(self, kinds: Mapping[str, Kind], site: Site, on_step: Callable[[str], None]) -> None:
        self.done: Counter[str] = Counter()
        self._kinds = kinds
        self._site = site
        self._on_step = on_step
        self._busy: set[str] = set()
        self._running = 0
        self._changed = threading.Condition()

    def inject(self, plan: Iterable[PlannedFault]) -> None:
        """Return when every fault is over and mended. Raises the first error of a fault."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fault") as pool:
            futures: list[Future[None]] = []
            for number, planned in enumerate(plan, start=1):
                time.sleep(planned.gap_s)
                kind = self._kinds[planned.name]
                self._take(kind)
                self._on_step(f"fault {number}: {planned.name}")
                futures.append(pool.submit(self._inject, planned, kind))
                if any(future.done() and future.exception() for future in futures):
                    break
        for future in futures:
            future.result()

    def _take(self, kind: Kind) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._running < AT_ONCE and not kind.parts & self._busy)
            self._busy |= kind.parts
            self._running += 1

    def _inject(self, planned: PlannedFault, kind: Kind) -> None:
        try:
            kind.inject(self._site, random.Random(planned.seed))
            self.done[planned.name] += 1
        finally:
            with self._changed:
                self._busy -= kind.parts
                self._running -= 1
                self._changed.notify_all()
