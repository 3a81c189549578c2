"""The publishing part of the demo, and the count of the answers."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from dev.demo.submissions import Submission, first_submissions, refused_submissions, repeated_submissions
from dev.load.events import EventJson
from dev.load.producer import Answer, Producer, share
from dev.stack.running import Running

CONCURRENCY = 16
TRIES = 12


@dataclass
class PublishTally:
    """The answers of `publish`, counted in events."""

    sent: int = 0
    duplicates: int = 0
    rejected: int = 0
    accepted_at: dict[int, float] = field(default_factory=dict)
    """The time of the first 2xx of an event, by its marker, in monotonic seconds."""
    surprises: list[str] = field(default_factory=list)
    """The unexpected answers."""

    def note(self, submission: Submission, event: EventJson, answer: Answer) -> None:
        """Count the answer for an event."""
        marker, result = event["data"]["n"], result_of(answer)
        self.sent += 1
        if result in {"rejected", "conflict"}:
            self.rejected += 1
        elif marker in self.accepted_at:
            self.duplicates += 1
        elif result != "failed":
            self.accepted_at[marker] = time.monotonic()
        if result != submission.expected:
            self.surprises.append(f"event {marker} was {result} instead of {submission.expected}: {answer}")


def result_of(answer: Answer) -> str:
    """Return `accepted`, `duplicate`, `rejected`, `conflict` or `failed`."""
    if "result" in answer:
        result: str = answer["result"]
        return result
    if answer.get("title") == "identity-conflict":
        return "conflict"
    return "rejected" if "title" in answer and answer["status"] < 500 else "failed"


async def publish_all(running: Running, events: Sequence[EventJson]) -> PublishTally:
    """Send every event, then some events again, then the events to refuse."""
    tally = PublishTally()
    producer = Producer(
        lambda: running.publish_url, running.token, connections=CONCURRENCY, answer_within_s=30.0, tries=TRIES
    )

    async def publish(submission: Submission) -> None:
        def note(event: EventJson, answer: Answer) -> None:
            tally.note(submission, event, answer)

        await producer.publish(submission.events, submission.encode, note)

    async with aclosing(producer):
        for submissions in (first_submissions, repeated_submissions, refused_submissions):
            await share(submissions(events), CONCURRENCY, publish)
    return tally
