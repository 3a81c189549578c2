"""The state of the log: its epoch, the heads that it must still have, and a regression.

The log is append-only, so a document that was in it once stays in it. Only a person with their own database user, or
the restore of a backup, breaks this. Nothing in the log shows the loss. So each document in `checkpoints` keeps
*heads*: `_id` and `seq` of documents that were the newest in the log. The log has *regressed* in these cases:

- It lacks a head, or has its `_id` with another `seq`: the head was lost, and the relay stored its event again. A
  backup lacks the newest documents, so it lacks the newest heads. Older heads show a hole in the middle.
- It has a lost head again, with its old `seq`: a backup was restored after `reconcile`. The documents of the backup lie
  behind the cursors of the feed.
- A checkpoint of this epoch says so. The symptom can go away while the damage stays. So a regression lasts until
  `reconcile` has compared the log with `events`. Then a new *epoch* begins.

The relay confirms an event only if a head at the event's `seq` or above it is in `checkpoints`. So a backup without a
confirmed event lacks a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bson.timestamp import Timestamp
from pymongo import DESCENDING

from twofold.mongo.client import Database, Document, Session

MAX_HEADS = 32
"""The number of heads in a document. Heads are thinned out: new heads are a minute apart, old heads days."""

BEFORE_EVERY_SEQ = Timestamp(0, 0)


@dataclass(frozen=True, slots=True)
class LogState:
    """The state of the log at a moment."""

    epoch: int
    """The number of reconciliations so far."""
    head: Document | None
    """`_id` and `seq` of the newest document in the log. None for an empty log."""
    heads: Sequence[Document]
    """Earlier heads, oldest first."""
    missing: Sequence[Document]
    """The missing heads: documents that the log had, and has no more."""
    lost: Sequence[Document]
    """The heads that were missing at earlier reconciliations, and that the log still lacks."""
    stored_to: Timestamp
    """The last checkpoint counted the documents of the log up to this `seq`."""
    regressed: bool

    @property
    def missing_from(self) -> Timestamp | None:
        """The lowest `seq` of the missing heads. None: no head is missing."""
        return min((head["seq"] for head in self.missing), default=None)

    @property
    def is_known(self) -> bool:
        """True if the present head is among the heads already."""
        return self.head is None or self.head in self.heads

    def entry(self, stored_to: Timestamp | None = None) -> Document:
        """Return the fields that a document in `checkpoints` keeps of this state, with the present head.

        No missing head is thinned out: `reconcile` must know the first loss.
        """
        there = _thin([head for head in self.heads if head not in self.missing], self.head)
        return {
            "epoch": self.epoch,
            "heads": sorted([*self.missing, *there], key=_seq_of),
            "lost": self.lost,
            "stored_to": stored_to or self.stored_to,
            "log_regressed": self.regressed,
        }

    def next_epoch(self, last: Document | None) -> Document:
        """Return the fields of a reconciliation that began in this state. `last` is the last document in `checkpoints`.

        Heads from the time of the reconciliation are kept: the log may have lost them again meanwhile.
        """
        heads = [head for head in (last or {"heads": []})["heads"] if head not in self.missing]
        if self.head and self.head not in heads:
            heads.append(self.head)
        return {
            "epoch": (last["epoch"] if last else 0) + 1,
            "heads": sorted(heads, key=_seq_of),
            "lost": [*self.lost, *self.missing][-MAX_HEADS:],
            "stored_to": self.head["seq"] if self.head else BEFORE_EVERY_SEQ,
            "log_regressed": False,
        }


def _seq_of(head: Document) -> Timestamp:
    seq: Timestamp = head["seq"]
    return seq


def _thin(earlier: Sequence[Document], head: Document | None) -> Sequence[Document]:
    """Add a head. If there are too many, drop the head whose gap is the smallest share of its age.

    So the distances of the heads grow with their age. The oldest and the newest head stay.
    """
    heads = [*earlier] if head is None or head in earlier else [*earlier, head]
    while len(heads) > MAX_HEADS:
        times = [kept["seq"].time for kept in heads]
        shares = [
            (following - before) / (times[-1] + 1 - time)
            for before, time, following in zip(times, times[1:], times[2:], strict=False)
        ]
        del heads[1 + shares.index(min(shares))]
    return heads


class LogStates:
    """Reads the state of the log, from `checkpoints` and `event_store`. Every method raises the driver's errors."""

    def __init__(self, database: Database) -> None:
        self._checkpoints = database["checkpoints"]
        self._event_store = database["event_store"]

    async def read(self, session: Session) -> LogState:
        """Return the state, as the reads of `session` see it."""
        last, head = await self.last(session), await self._head(session)
        if last is None:
            return LogState(0, head, [], [], [], BEFORE_EVERY_SEQ, regressed=False)
        ids = [kept["_id"] for kept in (*last["heads"], *last["lost"])]
        found = self._event_store.find({"_id": {"$in": ids}}, {"seq": 1}, session=session)
        there = {(document["_id"], document["seq"]) async for document in found}
        missing = [kept for kept in last["heads"] if (kept["_id"], kept["seq"]) not in there]
        lost = [kept for kept in last["lost"] if (kept["_id"], kept["seq"]) not in there]
        return LogState(
            last["epoch"],
            head,
            last["heads"],
            missing,
            lost,
            last["stored_to"],
            regressed=bool(last["log_regressed"] or missing or len(lost) < len(last["lost"])),
        )

    async def last(self, session: Session) -> Document | None:
        """Return the newest document of the newest epoch; of those with a regression, if there are such documents.

        A relay may measure before `reconcile` ends, or before another relay finds a regression, and record later.
        """
        order = [("epoch", DESCENDING), ("log_regressed", DESCENDING), ("seq", DESCENDING)]
        return await anext(self._checkpoints.find({}, session=session).sort(order).limit(1), None)

    async def _head(self, session: Session) -> Document | None:
        newest = self._event_store.find({}, {"seq": 1}, session=session).sort("seq", DESCENDING).limit(1)
        return await anext(newest, None)
