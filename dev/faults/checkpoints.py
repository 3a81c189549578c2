"""The verdict on the completeness checkpoints. Pure.

The comparisons are exact. MongoDB's cluster clock gives the `seq` of an event in `events`, its `seq` in `event_store`,
and the `seq` of the checkpoint.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from uuid import UUID

from bson.timestamp import Timestamp

from dev.comparison import SentEvent, Stored
from dev.faults.changes import Change, Inserted

_ALWAYS = Timestamp(0, 0)
_NEVER = Timestamp(2**32 - 1, 2**32 - 1)


def overclaims(
    checkpoints: Iterable[Stored], changes: Iterable[Change], late: Mapping[UUID, SentEvent], log: Mapping[UUID, Stored]
) -> list[str]:
    """Return the checkpoints with a low watermark above an event that came into `event_store` after the checkpoint."""
    inserted = sorted((change for change in changes if isinstance(change, Inserted)), key=lambda change: change.seq)
    seqs = [change.seq for change in inserted]
    logged = list(accumulate((_logged_at(change, late, log) for change in inserted), max))
    wrong = []
    for checkpoint in checkpoints:
        watermark = checkpoint.get("low_watermark")
        before = bisect_left(seqs, watermark) if watermark is not None else 0
        if before and logged[before - 1] > checkpoint["seq"]:
            wrong.append(f"the checkpoint of {checkpoint['seq']}: low watermark {watermark}")
    return wrong


def _logged_at(change: Inserted, late: Mapping[UUID, SentEvent], log: Mapping[UUID, Stored]) -> Timestamp:
    conflict = late.get(change.event_id)
    if conflict is not None and conflict.digest == change.digest:
        return _ALWAYS  # a checkpoint counts a conflict apart from the low watermark
    logged = log.get(change.event_id)
    return logged["seq"] if logged and logged["digest"] == change.digest else _NEVER


def disagreements(checkpoints: Iterable[Stored], changes: Sequence[Change], conflicts: int) -> list[str]:
    """Return the figures of the last checkpoint that differ from the state after the run."""
    made = [checkpoint for checkpoint in checkpoints if checkpoint["kind"] == "checkpoint"]
    if not made:
        return ["it does not exist"]
    last = made[-1]
    newest = max((change.seq for change in changes if isinstance(change, Inserted)), default=_ALWAYS)
    true = {"pending": 0, "dead": 0, "unreadable": 0, "stuck": 0, "log_regressed": False, "conflicting": conflicts}
    wrong = [f"{name} is {last[name]}, not {value}" for name, value in true.items() if last[name] != value]
    if last["low_watermark"] is None or last["low_watermark"] <= newest:
        wrong.append(f"the low watermark is {last['low_watermark']}, the newest event is at {newest}")
    return wrong
