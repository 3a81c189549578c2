"""The memory of a function during an unbounded answer: an export, and the whole feed."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from bson.timestamp import Timestamp

from dev.stack import Options, Stack
from dev.stack.functions import FunctionProcess
from tests.helpers import View, an_event, view
from twofold.mongo.client import Document

pytestmark = [pytest.mark.guarantee("R25", "R35"), pytest.mark.slow]

EVENTS = 1_000_000
BATCH = 10_000
BOUND_KIB = 150 * 1024


@pytest.fixture(scope="module")
def large(broker_name: str) -> Iterator[View]:
    """Start a stack, and store a million events in both collections."""
    options = Options(broker=broker_name, with_functions=("admin", "audit"))
    with Stack(options) as stack, view(stack) as seen:
        fill(seen)
        yield seen


def fill(flow: View) -> None:
    """Store the same events in both collections, with a `seq` of an hour ago. Create the indexes at the end."""
    for name in ("events", "event_store"):
        flow.database[name].drop_indexes()
    documents = a_million()
    number = 0
    while batch := list(islice(documents, BATCH)):
        for name in ("events", "event_store"):
            for document in batch:
                number += 1
                document["seq"] = Timestamp(int(datetime.now(UTC).timestamp()) - 3600, number)
            flow.database[name].insert_many(batch, ordered=False)
    flow.stack.setup()


def a_million() -> Iterator[Document]:
    """Yield a million documents of about half a kilobyte, of several types, users and aggregates."""
    start = datetime.now(UTC) - timedelta(days=20)
    model = an_event(payload={"items": [{"sku": "A-1", "amount": 2, "price": "12.50"}] * 3, "note": "x" * 150})
    template = model.to_document() | {"stored_at": start}
    for number in range(EVENTS):
        yield template | {
            "_id": uuid4(),
            "event_type": f"order.{number % 7}",
            "aggregate_id": f"order-{number // 5}",
            "timestamp": start + timedelta(seconds=number),
            "metadata": {
                "service_name": "/shop",
                "user_id": f"user-{number % 1000}",
                "correlation_id": f"c-{number // 9}",
            },
        }


def peak_kib(function: FunctionProcess) -> int:
    """Return the largest resident memory of a worker process so far: `VmHWM` of proc(5)."""
    lines = [line for pid in function.worker_pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize("form", ["ndjson", "csv", "json"])
def test_an_export_of_a_million_events_takes_less_than_150_mib(large: View, form: str) -> None:
    admin = large.stack.functions["admin"]
    lines = 0
    with large.http.stream("GET", f"{admin.url}/export", params={"format": form}, timeout=600) as answer:
        assert answer.status_code == 200
        for chunk in answer.iter_bytes():
            lines += chunk.count(b"\n")
    assert lines == {"ndjson": EVENTS, "csv": EVENTS + 1, "json": EVENTS + 2}[form]
    assert peak_kib(admin) < BOUND_KIB


def test_the_feed_of_a_million_events_takes_less_than_150_mib(large: View) -> None:
    audit = large.stack.functions["audit"]
    seen: set[str] = set()
    cursor: dict[str, str] = {}
    while len(seen) < EVENTS:
        page = read(large.http, audit.url, cursor)
        ids = [event["event_id"] for event in page["events"]]
        assert ids, "the feed ends too early"
        seen.update(ids)
        cursor = {"cursor": page["cursor"]}
    assert read(large.http, audit.url, cursor)["events"] == []
    assert peak_kib(audit) < BOUND_KIB


def read(http: httpx.Client, url: str, cursor: dict[str, str]) -> Document:
    answer = http.get(f"{url}/feed", params={"limit": 1000, **cursor})
    assert answer.status_code == 200, answer.text
    page: Document = json.loads(answer.content)
    return page
