"""The verdict on a run: the accepted events and the sent poison, against the servers' documents and changes. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from dev.comparison import Findings, SentEvent, Stored, compare
from dev.faults.changes import Change, Deleted, Inserted, by_event
from dev.faults.checkpoints import disagreements, overclaims
from dev.faults.poison import MARKERS
from dev.faults.poisoner import SentPoison


@dataclass(frozen=True)
class Evidence:
    """The knowledge of the producers, and the contents of the servers, read with read concern `majority`."""

    acknowledged: Mapping[UUID, SentEvent]
    late: Mapping[UUID, SentEvent]
    """Accepted other content under an acknowledged id: the first event had left `events` by then."""
    made: int
    """Events with a lower marker were sent, acknowledged or not."""
    events: Sequence[Stored]
    event_store: Sequence[Stored]
    dead_letters: Sequence[Stored]
    checkpoints: Sequence[Stored]
    """The completeness checkpoints, by `seq`."""
    changes: Sequence[Change]
    """The changes of `events`, in the server's order, from before the first event on."""
    log_changes: Sequence[Change]
    """The changes of `event_store`, in the same way."""
    poison: SentPoison
    feeds: Mapping[str, Collection[UUID]]
    """The events of each reader of the feed."""
    outages: Sequence[Mapping[str, int]]
    """The number of new records for an event in the topic, in an outage of `store`."""


MOST_COPIES = 2
"""The records of an event in one outage of `store`: that of `publish`, and another if Kafka did not acknowledge it."""


class Verdict(NamedTuple):
    """The findings of a run, and the markers of the poison."""

    found: Findings
    disagreements: list[str]
    """Wrong figures of the last checkpoint."""
    poison_sent: set[str]
    poison_kept: set[str]

    def figures(self) -> dict[str, int]:
        """Return the counts. `checkpoints_ok` is false for an overclaim or a disagreement."""
        return {name: len(some) for name, some in self.found.items()} | {
            "poison_sent": len(self.poison_sent),
            "poison_kept": len(self.poison_kept),
            "checkpoints_ok": not self.found["overclaimed"] and not self.disagreements,
        }

    def complaints(self) -> list[str]:
        """Return every failure, with a few names."""
        found = self.found | {
            "poison that is not a dead letter": sorted(self.poison_sent - self.poison_kept),
            "wrong figures of the last checkpoint": self.disagreements,
        }
        return [f"{name}: {len(some)} ({', '.join(some[:5])})" for name, some in found.items() if some]


def judge(evidence: Evidence) -> Verdict:
    """Compare the whole evidence.

    Besides the findings of `compare`, `redriven_twice` has dead letters that two redrives sent at the same time, and
    `overclaimed` has checkpoints whose low watermark was too high. `feed_gaps` has the events that a reader of the feed
    never got. `sent_again` has the events that relay sent again and again while `store` was unavailable.
    """
    log = {document["_id"]: document for document in evidence.event_store}
    found = compare(
        evidence.acknowledged.values(),
        evidence.events,
        evidence.event_store,
        known=range(evidence.made),
        late=evidence.late.values(),
        expired={change.event_id for change in evidence.changes if isinstance(change, Deleted)},
    )
    markers = {marker for kept in evidence.dead_letters if (marker := marker_of(kept))}
    found["lost"] += [*expired_early(evidence, log), *missing_conflicts(evidence)]
    found["doubled"] += doubled_poison(evidence.dead_letters)
    found["differing"] += wrong_inserts(evidence)
    found["unexpected"] += unexpected_dead_letters(evidence)
    found["redriven_twice"] = [str(kept["_id"]) for kept in evidence.dead_letters if was_redriven_twice(kept)]
    found["overclaimed"] = overclaims(evidence.checkpoints, evidence.changes, evidence.late, evidence.log_changes)
    found["feed_gaps"] = feed_gaps(evidence, log)
    found["sent_again"] = [name for outage in evidence.outages for name, n in outage.items() if n > MOST_COPIES]
    return Verdict(
        found,
        disagreements(evidence.checkpoints, evidence.changes, len(evidence.late)),
        # A record that Kafka did not acknowledge, or that a broker lost, may never have reached `store`.
        poison_sent=evidence.poison.acknowledged - evidence.poison.gone | markers,
        poison_kept=markers,
    )


def feed_gaps(evidence: Evidence, log: Collection[UUID]) -> list[str]:
    """Return the accepted events of `event_store` that a reader of the feed never got."""
    accepted = [event_id for event_id in evidence.acknowledged if event_id in log]
    return [
        f"{event_id} by {name}" for name, got in evidence.feeds.items() for event_id in accepted if event_id not in got
    ]


def expired_early(evidence: Evidence, log: Collection[UUID]) -> list[str]:
    """Return the events that left `events` before an equal document was in `event_store`, and are there now."""
    early: set[UUID] = set()
    digests: dict[UUID, bytes] = {}
    logged = by_event(evidence.log_changes)
    for change in evidence.changes:
        if isinstance(change, Inserted):
            digests[change.event_id] = change.digest
        elif change.event_id in log and not any(
            isinstance(insert, Inserted) and insert.at <= change.at and insert.digest == digests.get(change.event_id)
            for insert in logged.get(change.event_id, ())
        ):
            early.add(change.event_id)
    return [f"{event_id} left events too early" for event_id in early if event_id in evidence.acknowledged]


def missing_conflicts(evidence: Evidence) -> list[str]:
    """Return the accepted conflicts that no operator can find: `events` has no conflicting outbox entry for them."""
    conflicting = {
        (document["_id"], document["digest"])
        for document in evidence.events
        if document.get("outbox", {}).get("state") == "conflicting"
    }
    missing = [sent for sent in evidence.late.values() if (sent.event_id, sent.digest) not in conflicting]
    return [f"{sent.event_id} with other content" for sent in missing]


def doubled_poison(dead_letters: Iterable[Stored]) -> list[str]:
    """Return every dead letter beyond the first of a poison record."""
    counted = Counter(marker for kept in dead_letters if (marker := marker_of(kept)))
    return [f"poison {marker}" for marker, count in counted.items() for _ in range(count - 1)]


def marker_of(dead_letter: Stored) -> str | None:
    """Return the marker of the poison record in a dead letter; None without a marker."""
    headers = {header["name"].encode(): header["value"] for header in dead_letter["headers"]}
    return next((headers[name].decode() for name in sorted(MARKERS & headers.keys())), None)


def wrong_inserts(evidence: Evidence) -> list[str]:
    """Return the acknowledged events whose document differed from the sent event when it came into `events`."""
    wrong = []
    for change in evidence.changes:
        if isinstance(change, Inserted):
            versions = [
                sent[change.event_id] for sent in (evidence.acknowledged, evidence.late) if change.event_id in sent
            ]
            if versions and not any(sent.has_content(change.digest, change.payload) for sent in versions):
                wrong.append(f"{change.event_id} when it came into events")
    return wrong


def unexpected_dead_letters(evidence: Evidence) -> list[str]:
    """Return the dead letters that hold neither poison, nor an undelivered record, nor a late conflict."""
    late = {(event_id, sent.digest) for event_id, sent in evidence.late.items()}
    return [
        f"dead letter {kept['_id']} ({kept['reason']})"
        for kept in evidence.dead_letters
        if marker_of(kept) is None
        if kept["reason"] != "undelivered" and (kept["event_id"], kept["digest"]) not in late
    ]


def was_redriven_twice(dead_letter: Stored) -> bool:
    """Return True if a redrive sent the dead letter before the redrive before it had its result."""
    lines = [line["what"] for line in dead_letter["history"]]
    return any(pair == ("redriven", "redriven") for pair in pairwise(lines))
