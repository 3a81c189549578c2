"""What was accepted and sent, against what the servers hold. Pure, so that each way to be wrong can be tried."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any
from uuid import UUID

from bson.timestamp import Timestamp

from dev.faults.poison import MARKERS, Sendings
from dev.faults.producer import Sent
from dev.faults.watch import Change, Deleted, Inserted

Document = Mapping[str, Any]

_NEVER = Timestamp(2**32 - 1, 2**32 - 1)


@dataclass(frozen=True)
class Evidence:
    """All that the verdict stands on: what the producers know, and what was read from the servers with majority."""

    acknowledged: Mapping[UUID, Sent]
    late: Mapping[UUID, Sent]
    """Other content that was accepted under an acknowledged id after its first event had left `events`."""
    made: int
    """Markers below it were sent, acknowledged or not."""
    events: Sequence[Document]
    event_store: Sequence[Document]
    dead_letters: Sequence[Document]
    checkpoints: Sequence[Document]
    """In the order of their `seq`."""
    changes: Sequence[Change]
    """Of `events`, in the server's order, from before the first event on."""
    poison: Sendings


@dataclass(frozen=True)
class Verdict:
    """How many are wrong in each way, and the poison."""

    lost: int
    """Acknowledged, and not in the log; or gone from `events` before that."""
    doubled: int
    """Documents beyond an event's first in one collection, and letters beyond a poison's first."""
    differing: int
    """Not what was sent, in either collection."""
    unexpected: int
    """In the log, or among the letters, and nobody sent it so."""
    redriven_twice: int
    """Letters that were sent twice by redrives at the same time."""
    poison_sent: int
    poison_kept: int
    overclaimed: int
    """Checkpoints that claimed more than was true when they were made."""
    checkpoints_ok: bool
    """None overclaimed, and the last agrees with what is there."""
    details: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """A few of each that is wrong, for people."""

    def complaints(self) -> list[str]:
        """Everything that is off."""
        names = ("lost", "doubled", "differing", "unexpected", "redriven_twice", "overclaimed")
        off = [f"{name}: {count}" for name in names if (count := getattr(self, name))]
        if self.poison_kept != self.poison_sent:
            off.append(f"poison_kept: {self.poison_kept}, but poison_sent: {self.poison_sent}")
        if not self.checkpoints_ok:
            off.append("checkpoints_ok: false")
        return off + [f"{name}: {', '.join(some[:5])}" for name, some in self.details.items() if some]


def judge(evidence: Evidence) -> Verdict:
    """Compare everything with everything."""
    log = {document["_id"]: document for document in evidence.event_store}
    lost = lost_events(evidence, log)
    doubled = [*surplus(evidence.events), *surplus(evidence.event_store), *doubled_poison(evidence.dead_letters)]
    differing = differing_events(evidence, log)
    unexpected = [*unexpected_events(evidence), *unexpected_letters(evidence)]
    twice = [str(letter["_id"]) for letter in evidence.dead_letters if was_redriven_twice(letter)]
    claims = overclaims(evidence, log)
    disagreeing = disagreements(evidence)
    sent, kept = poison_counts(evidence)
    return Verdict(
        lost=len(lost),
        doubled=len(doubled),
        differing=len(differing),
        unexpected=len(unexpected),
        redriven_twice=len(twice),
        poison_sent=len(sent),
        poison_kept=len(kept),
        overclaimed=len(claims),
        checkpoints_ok=not claims and not disagreeing,
        details={
            "lost": lost,
            "doubled": doubled,
            "differing": differing,
            "unexpected": unexpected,
            "redriven twice": twice,
            "poison not kept": sorted(sent - kept),
            "overclaimed": claims,
            "the last checkpoint": disagreeing,
        },
    )


def lost_events(evidence: Evidence, log: Mapping[UUID, Document]) -> list[str]:
    """Acknowledged events that are not in the log, or that left `events` before they were there, or without a trace."""
    present = {document["_id"] for document in evidence.events}
    deleted = {change.event_id for change in evidence.changes if isinstance(change, Deleted)}
    early = expired_early(evidence, log)
    found = [
        f"{sent.event_id} is not in event_store"
        if event_id not in log
        else f"{sent.event_id} left events before it was in event_store"
        if event_id in early
        else f"{sent.event_id} is not in events, and never left it"
        for event_id, sent in evidence.acknowledged.items()
        if event_id not in log or event_id in early or (event_id not in present and event_id not in deleted)
    ]
    return found + [f"{event_id} with other content" for event_id in lost_late(evidence)]


def expired_early(evidence: Evidence, log: Mapping[UUID, Document]) -> set[UUID]:
    """The events whose document left `events` before an equal one was in the log."""
    early: set[UUID] = set()
    digests: dict[UUID, bytes] = {}
    for change in evidence.changes:
        if isinstance(change, Inserted):
            digests[change.event_id] = change.digest
            continue
        logged = log.get(change.event_id)
        if logged is None or logged["seq"] > change.at or logged["digest"] != digests.get(change.event_id):
            early.add(change.event_id)
    return early


def lost_late(evidence: Evidence) -> list[UUID]:
    """Accepted conflicts that are not kept for somebody to look at: in `events` with a mark that says so."""
    marked = {
        (document["_id"], document["digest"])
        for document in evidence.events
        if document.get("outbox", {}).get("state") == "conflicting"
    }
    return [event_id for event_id, sent in evidence.late.items() if (event_id, sent.digest) not in marked]


def surplus(documents: Iterable[Document]) -> list[str]:
    """Each document beyond an event's first. By the marker: the server keeps `_id` unique, so `_id` would not tell."""
    counted = Counter(document["payload"].get("n") for document in documents)
    return [f"event {marker}" for marker, count in counted.items() for _ in range(count - 1)]


def doubled_poison(letters: Iterable[Document]) -> list[str]:
    """Each letter beyond a poison's first."""
    counted = Counter(marker for letter in letters if (marker := marker_of(letter)))
    return [f"poison {marker}" for marker, count in counted.items() for _ in range(count - 1)]


def marker_of(letter: Document) -> str | None:
    """The marker of the poison that a letter holds; None if it holds none of ours."""
    headers = {header["name"].encode(): header["value"] for header in letter["headers"]}
    return next((headers[name].decode() for name in sorted(MARKERS & headers.keys())), None)


def differing_events(evidence: Evidence, log: Mapping[UUID, Document]) -> list[str]:
    """Events that are not what was sent: in the log, in `events` now, or in `events` when they came there."""
    wrong = [
        f"{event_id} in event_store"
        for event_id, sent in evidence.acknowledged.items()
        if event_id in log and not _is(sent, log[event_id]["digest"], log[event_id]["payload"])
    ]
    wrong += [
        f"{document['_id']} in events"
        for document in evidence.events
        if not _is_known(evidence, document["_id"], document["digest"], document["payload"])
    ]
    return wrong + [
        f"{change.event_id} when it came into events"
        for change in evidence.changes
        if isinstance(change, Inserted)
        if not _is_known(evidence, change.event_id, change.digest, change.payload)
    ]


def _is(sent: Sent, digest: bytes, payload: Document) -> bool:
    return sent.digest == digest and sent.payload == payload


def _is_known(evidence: Evidence, event_id: UUID, digest: bytes, payload: Document) -> bool:
    """Whether it is what was sent under that id; what nobody acknowledged can't be compared."""
    known = [sent for sent in (evidence.acknowledged.get(event_id), evidence.late.get(event_id)) if sent]
    return not known or any(_is(sent, digest, payload) for sent in known)


def unexpected_events(evidence: Evidence) -> list[str]:
    """What is in the log and was never sent: poison that got through, say."""
    return [
        f"{document['_id']} in event_store"
        for document in evidence.event_store
        if document["payload"].get("n") not in range(evidence.made) or "forged" in document["payload"]
    ]


def unexpected_letters(evidence: Evidence) -> list[str]:
    """Letters that hold no poison, and neither what a source gave up on nor a conflict that was accepted late."""
    late = {(event_id, sent.digest) for event_id, sent in evidence.late.items()}
    return [
        f"letter {letter['_id']} ({letter['reason']})"
        for letter in evidence.dead_letters
        if marker_of(letter) is None
        if letter["reason"] != "undelivered" and (letter["event_id"], letter["digest"]) not in late
    ]


def was_redriven_twice(letter: Document) -> bool:
    """Whether it was sent again while it was under way."""
    lines = [line["what"] for line in letter["history"]]
    return any(pair == ("redriven", "redriven") for pair in pairwise(lines))


def poison_counts(evidence: Evidence) -> tuple[set[str], set[str]]:
    """The poison that `store` or the dead-letter sink must have seen, and that among the letters.

    A record that went with the broker's log before it was kept may have been seen by nobody; one that Kafka did not
    acknowledge may never have been in the topic. Those count if they were kept.
    """
    kept = {marker for letter in evidence.dead_letters if (marker := marker_of(letter))}
    return (evidence.poison.acknowledged - evidence.poison.gone) | kept, kept


def overclaims(evidence: Evidence, log: Mapping[UUID, Document]) -> list[str]:
    """Checkpoints that say "complete up to" beyond an event that came into the log only after the checkpoint.

    Exact, since all these moments are given by the one cluster clock: an event's `seq` in `events`, its `seq` in the
    log, and the checkpoint's own.
    """
    inserted = sorted(
        (change for change in evidence.changes if isinstance(change, Inserted)), key=lambda change: change.seq
    )
    seqs = [change.seq for change in inserted]
    logged = list(accumulate((_logged_at(evidence, change, log) for change in inserted), max))
    wrong = []
    for checkpoint in evidence.checkpoints:
        up_to = checkpoint.get("low_watermark")
        before = bisect_left(seqs, up_to) if up_to is not None else 0
        if before and logged[before - 1] > checkpoint["seq"]:
            wrong.append(f"the checkpoint of {checkpoint['seq']}: complete up to {up_to}")
    return wrong


def _logged_at(evidence: Evidence, change: Inserted, log: Mapping[UUID, Document]) -> Timestamp:
    late = evidence.late.get(change.event_id)
    if late is not None and late.digest == change.digest:
        return Timestamp(0, 0)  # a conflict is counted as one, and stated as one
    logged = log.get(change.event_id)
    return logged["seq"] if logged and logged["digest"] == change.digest else _NEVER


def disagreements(evidence: Evidence) -> list[str]:
    """What the last checkpoint says, where it isn't so."""
    stated = [checkpoint for checkpoint in evidence.checkpoints if checkpoint["kind"] == "checkpoint"]
    if not stated:
        return ["there is none"]
    last = stated[-1]
    newest = max((change.seq for change in evidence.changes if isinstance(change, Inserted)), default=Timestamp(0, 0))
    true = {"pending": 0, "dead": 0, "unreadable": 0, "log_regressed": False, "conflicting": len(evidence.late)}
    wrong = [f"{name} is {last[name]}, not {value}" for name, value in true.items() if last[name] != value]
    if last["low_watermark"] is None or last["low_watermark"] <= newest:
        wrong.append(f"complete up to {last['low_watermark']}, the newest event is of {newest}")
    return wrong
