"""The verdict on the completeness checkpoints. Pure.

Each checkpoint is compared with the truth of its time. The truth comes from the changes of `events` and of
`event_store`: an event is missing in the log until its document is inserted, and again from a deletion until it is
inserted once more. An event that left `events` and was published again counts from its last acceptance before the
absence: without the log, nothing knows the earlier one (docs/operations.md). MongoDB's cluster clock gives all times.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from bson.timestamp import Timestamp

from dev.comparison import SentEvent, Stored
from dev.faults.changes import Change, Deleted, Inserted, by_event

_ALWAYS = Timestamp(0, 0)
_NEVER = Timestamp(2**32 - 1, 2**32 - 1)


class Absence(NamedTuple):
    """A time in which the log lacked an accepted event. All numbers are those of cluster times."""

    accepted: int
    since: int
    until: int


def overclaims(
    checkpoints: Iterable[Stored], changes: Iterable[Change], late: Mapping[UUID, SentEvent], log: Iterable[Change]
) -> list[str]:
    """Return the checkpoints with a low watermark above an event that the log lacked then.

    `log` has the changes of `event_store`. A checkpoint reads one snapshot between its `at` and its `seq`. So an
    absence counts if it lasted through both.
    """
    absences = list(_absences(changes, late, log))
    wrong = []
    for checkpoint in checkpoints:
        if (low_watermark := checkpoint.get("low_watermark")) is not None:
            watermark, recorded = _number(low_watermark), _number(checkpoint["seq"])
            began = int(checkpoint["at"].timestamp()) << 32
            if any(accepted < watermark and since < began and until > recorded for accepted, since, until in absences):
                wrong.append(f"the checkpoint of {checkpoint['seq']}: low watermark {low_watermark}")
    return wrong


def _absences(changes: Iterable[Change], late: Mapping[UUID, SentEvent], log: Iterable[Change]) -> Iterator[Absence]:
    changes = list(changes)
    logged, published = by_event(log), by_event(changes)
    for change in changes:
        conflict = late.get(change.event_id)
        if isinstance(change, Deleted) or (conflict is not None and conflict.digest == change.digest):
            continue  # a checkpoint counts a conflict apart from the low watermark
        accepted, since = _number(change.seq), 0
        again = _next_acceptance(change, published[change.event_id])
        for later in logged.get(change.event_id, ()):
            if isinstance(later, Deleted):
                since = min(since, _number(later.at))
            elif later.digest == change.digest:
                if since < again:
                    yield Absence(accepted, since, _number(later.at))
                since = _number(_NEVER)
        if since < again:
            yield Absence(accepted, since, _number(_NEVER))


def _next_acceptance(first: Inserted, changes: Iterable[Change]) -> int:
    same = (change for change in changes if isinstance(change, Inserted) and change.digest == first.digest)
    return min((_number(change.seq) for change in same if change.seq > first.seq), default=_number(_NEVER))


def _number(time: Timestamp) -> int:
    return time.time << 32 | time.inc


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
