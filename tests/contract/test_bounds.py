"""The bounds of requests, dead letters and logs on a real MongoDB. Poison that raises an unexpected error is alone."""

import copy
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from functions.pod_events.cluster import Cluster, connect
from functions.pod_events.lifecycle import lifecycle
from functions.pod_events.listing import Listing, ListingRun
from tests.api_server import ApiServer, api_server
from tests.helpers import Raw, accept, an_event, delivered, failing, listened, log, some_events
from tests.pods import IDENTITY, SourceRequest, new_life, pod_watcher
from twofold.cloudevents.attributes import content_fields
from twofold.cloudevents.decode_http import IncomingEvent
from twofold.errors import Invalid, Malformed, Unavailable, Unexpected, UnknownReplay
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database
from twofold.observability.logs import _Lines
from twofold.settings import Settings
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.failed_delivery import MAX_KEPT_BODY_BYTES, MAX_KEPT_HEADER_BYTES, MAX_KEPT_HEADERS, DeadLetter
from twofold.write.batch import Published
from twofold.write.publisher import Publisher, open_publisher
from twofold.write.store import Store, keep_undelivered

ERRORS = [
    pytest.param(error, id=type(error).__name__)
    for error in (KeyError("SECRET"), OverflowError("SECRET"), RecursionError("SECRET"), UnicodeError("SECRET"))
]
"""Unexpected errors, with a value that no log line may show."""


@pytest.fixture
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    async with open_publisher(settings) as publishing:
        yield publishing


@pytest.fixture
def store(database: Database, settings: Settings) -> Store:
    return Store(database, settings, clock=lambda: datetime.now(UTC))


async def dead_letters(database: Database) -> list[dict[str, Any]]:
    return [document async for document in database["dead_letters"].find()]


def raising(error: Exception, when: Callable[[Any], bool], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return `real`, but with the error for a first argument that `when` accepts."""

    def sometimes(first: Any, *rest: Any, **named: Any) -> Any:
        if when(first):
            raise type(error)(*error.args)
        return real(first, *rest, **named)

    return sometimes


# --- B3: dead letters ---------------------------------------------------------------------------------------------


@pytest.mark.fault("B3")
@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("number", [1000, 115_000])
async def test_a_record_with_many_headers_is_kept_shortened(store: Store, database: Database, number: int) -> None:
    """Twice, as a KafkaSource would deliver it after a 503. MongoDB refuses the whole as one document."""
    headers, body = delivered(an_event(), partition=1, offset=2)
    headers += [(f"ce-{n:04x}{'x' * 30}".encode(), b"") for n in range(number)]
    for _ in range(2):
        await store.take(headers, body)
    (kept,) = await dead_letters(database)
    assert (kept["reason"], kept["times"], kept["body"]) == ("malformed", 2, body)
    whole = hashlib.sha256()
    for name, value in headers:
        whole.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
    whole.update(body)
    size = sum(len(name) + len(value) for name, value in headers)
    assert kept["shortened"] == {
        "headers": len(headers),
        "header_bytes": size,
        "body_bytes": len(body),
        "sha256": whole.digest(),
    }
    assert len(kept["headers"]) == MAX_KEPT_HEADERS
    assert await DeadLetters(database).start_redrive(kept["_id"], "me") is None, "its record would not be the original"


@pytest.mark.fault("B3")
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([(b"ce-x", b"")] * MAX_KEPT_HEADERS, b"x"),
        ([(b"ce-x", b"y" * (MAX_KEPT_HEADER_BYTES // 2 - 4))] * 2, b"x" * MAX_KEPT_BODY_BYTES),
    ],
    ids=["number", "bytes"],
)
async def test_a_dead_letter_at_the_bound_is_whole_and_fits(headers: Raw, body: bytes, database: Database) -> None:
    letters = DeadLetters(database)
    await letters.keep(DeadLetter(headers, body, Malformed("é" * 10_000), 1, 2))
    await letters.keep(DeadLetter([*headers, (b"ce-x", b"")], body + b"y", Malformed("x"), 1, 3))
    whole, cut = sorted(await dead_letters(database), key=lambda kept: "shortened" in kept)
    assert "shortened" not in whole
    assert (len(whole["headers"]), whole["body"], len(whole["detail"])) == (len(headers), body, 2000)
    assert len(cut["headers"]) <= MAX_KEPT_HEADERS
    assert len(cut["body"]) <= MAX_KEPT_BODY_BYTES


@pytest.mark.fault("B3", "B10")
async def test_an_undelivered_record_with_an_unexpected_error_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twofold.cloudevents.decode_kafka.content_fields", raising(KeyError("x"), bool, len))
    await keep_undelivered(DeadLetters(database), *delivered(an_event()))
    (kept,) = await dead_letters(database)
    assert (kept["reason"], kept["event_id"]) == ("undelivered", None)


# --- B6: replays --------------------------------------------------------------------------------------------------


@pytest.mark.fault("B6")
@pytest.mark.guarantee("G8")
async def test_a_batch_of_replays_costs_two_finds(settings: Settings) -> None:
    in_events, in_log, unknown = (some_events(300) for _ in range(3))
    async with listened(settings) as (database, commands):
        await accept(database, *in_events)
        await log(database, *in_log)
        publisher = Publisher(EventRepository(database), EventStore(database), Sender(settings), settings)
        before = len(commands.sent)
        outcomes = await publisher.publish([IncomingEvent.of(event, "r") for event in [*in_events, *in_log, *unknown]])
        sent = [command.command_name for command in commands.sent[before:]]
        await publisher.close()
    assert [command for command in sent if command != "getMore"] == ["find", "find"]
    assert [type(outcome) for outcome in outcomes] == [Published] * 600 + [UnknownReplay] * 300


# --- B7: logs -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("B7")
async def test_no_payload_is_in_the_cause_of_a_refused_write(settings: Settings, database: Database) -> None:
    """The events are stored already, so the server names each of them in its answer."""
    events = [an_event(payload={"iban": "DE02SECRET", "pad": "x" * 1000}) for _ in range(100)]
    failure: dict[str, Any] = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
    async with open_publisher(settings, "tests") as publisher:
        await publisher.publish([IncomingEvent.of(event) for event in events])
        async with failing(database, "tests", **failure):
            with pytest.raises(Unavailable) as caught:
                await publisher.publish([IncomingEvent.of(event) for event in events])
    cause = caught.value.__cause__
    assert str(cause) == "BulkWriteError: write errors 11000 (100 times), write-concern errors 64 (1 times)"
    record = logging.getLogger("twofold.x").makeRecord(
        "twofold.x", logging.WARNING, __file__, 1, "503", (), (type(caught.value), caught.value, None)
    )
    line = _Lines("publish", console=False).format(record)
    assert "SECRET" not in line
    assert len(line) < 10_000


# --- B9: times ----------------------------------------------------------------------------------------------------


@pytest.mark.fault("B9")
async def test_a_time_in_the_far_future_is_refused(publisher: Publisher, settings: Settings) -> None:
    """A reader would see this event first on every newest page. A replayed event is an event of the log already."""
    ahead = datetime.now(UTC) + timedelta(seconds=settings.max_future_s)
    soon, late = an_event(timestamp=ahead - timedelta(seconds=1)), an_event(timestamp=ahead + timedelta(seconds=60))
    assert (await publisher.publish_base_event(soon)).status == "accepted"
    with pytest.raises(Invalid, match="future") as caught:
        await publisher.publish_base_event(late)
    assert caught.value.problems[0].where == "time"
    (outcome,) = await publisher.publish([IncomingEvent.of(late, "r")])
    assert isinstance(outcome, UnknownReplay)


# --- unexpected errors --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_value_is_logged")
@pytest.mark.fault("B10")
@pytest.mark.parametrize("error", ERRORS)
async def test_an_event_with_an_unexpected_error_harms_no_other_event_of_its_batch(
    publisher: Publisher, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, poison, other = some_events(3)
    broken = raising(error, lambda document: document["_id"] == poison.event_id, EventRepository.encode)
    monkeypatch.setattr(EventRepository, "encode", staticmethod(broken))
    outcomes = await publisher.publish([IncomingEvent.of(event) for event in (good, poison, other)])
    assert [type(outcome) for outcome in outcomes] == [Published, Unexpected, Published]


@pytest.mark.usefixtures("no_value_is_logged")
@pytest.mark.fault("B10")
@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["decode", "encode"])
async def test_a_record_with_an_unexpected_error_is_a_dead_letter(
    store: Store,
    database: Database,
    error: Exception,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be 503 for ever otherwise. Its dead letter can be redriven, when the code is repaired."""
    poison, other = an_event(), an_event()
    if place == "decode":
        broken = raising(error, lambda given: given["id"] == poison.id, content_fields)
        monkeypatch.setattr("twofold.cloudevents.decode_kafka.content_fields", broken)
    else:
        broken = raising(error, lambda given: given.event_id == poison.event_id, EventStore.encode)
        monkeypatch.setattr(EventStore, "encode", staticmethod(broken))
    await store.take(*delivered(poison))
    await store.take(*delivered(other))
    (kept,) = await dead_letters(database)
    assert (kept["reason"], kept["state"]) == ("unexpected", "dead")
    assert [document["_id"] async for document in database["event_store"].find()] == [other.event_id]
    assert "SECRET" not in kept["detail"]
    assert await DeadLetters(database).start_redrive(kept["_id"], "me") is not None


@pytest.fixture
def no_value_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check the log lines after the test: an error's message can hold personal data."""
    yield
    assert "SECRET" not in caplog.text


# --- B10 and B4: pods ---------------------------------------------------------------------------------------------


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as served:
        yield served


class Lister(NamedTuple):
    """A listing and its API server."""

    run: Callable[[], Coroutine[Any, Any, ListingRun | None]]
    api: ApiServer


@pytest.fixture
async def lister(settings: Settings, sender: Sender, api: ApiServer) -> AsyncIterator[Lister]:
    own = settings.model_copy(update={"kubernetes_api_server": api.url, "pods_page": 50})
    async with listened(own) as (database, _):
        publisher = Publisher(EventRepository(database), EventStore(database), sender, own)
        watcher = pod_watcher(publisher, database)
        listing = Listing(
            database, publisher, watcher, IDENTITY.cluster, partial(connect, own), budget_s=60, seconds=lambda: 0.0
        )
        yield Lister(listing.run, api)
        await publisher.close()


def some_pods(api: ApiServer, number: int) -> list[SourceRequest]:
    pods = [new_life("exit_1")[-1] for _ in range(number)]
    for sent in pods:
        sent.pod["metadata"]["name"] = f"pod-{uuid4()}"
        api.put(sent.pod)
    return pods


async def observed_pods(database: Database) -> set[str]:
    return set(await database["events"].distinct("payload.pod_uid"))


@pytest.mark.fault("B10")
@pytest.mark.guarantee("G6")
async def test_a_pod_with_a_huge_grace_period_ends_no_listing(lister: Lister, database: Database) -> None:
    """Go's 64 bits overflow: `deletionTimestamp` is 705 s ahead."""
    good = some_pods(lister.api, 5)
    bad = copy.deepcopy(new_life("deleted_while_running")[0].pod)
    soon = (datetime.now(UTC) + timedelta(seconds=705)).strftime("%Y-%m-%dT%H:%M:%SZ")
    bad["metadata"] |= {"name": "a-bad", "deletionGracePeriodSeconds": 73786977000, "deletionTimestamp": soon}
    lister.api.put(bad)
    run = await lister.run()
    assert run is not None
    assert (run.listed, run.unreadable) == (6, 0)
    assert await observed_pods(database) == {sent.uid for sent in good} | {bad["metadata"]["uid"]}


@pytest.mark.usefixtures("no_value_is_logged")
@pytest.mark.fault("B10")
@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["read", "encode"])
async def test_a_pod_with_an_unexpected_error_is_a_dead_letter_alone(
    lister: Lister,
    database: Database,
    error: Exception,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, (bad,) = some_pods(lister.api, 5), some_pods(lister.api, 1)
    if place == "read":
        broken = raising(error, lambda pod: pod.metadata.uid == bad.uid, lifecycle)
        monkeypatch.setattr("functions.pod_events.watching.lifecycle", broken)
    else:
        broken = raising(error, lambda given: given["payload"]["pod_uid"] == bad.uid, EventRepository.encode)
        monkeypatch.setattr(EventRepository, "encode", staticmethod(broken))
    run = await lister.run()
    assert run is not None
    assert (run.listed, run.unreadable) == (6, 1)
    assert await observed_pods(database) == {sent.uid for sent in good}
    (kept,) = await dead_letters(database)
    assert (kept["reason"], json.loads(kept["body"])["metadata"]["uid"]) == ("unexpected", bad.uid)


@pytest.mark.fault("B4")
def test_a_page_of_large_pods_is_followed_by_smaller_pages(settings: Settings, api: ApiServer) -> None:
    """The bound is in bytes, and no pod is left out. A page of small pods grows again."""
    pods = some_pods(api, 120)
    for sent in sorted(pods, key=lambda sent: str(sent.pod["metadata"]["name"]))[20:60]:
        sent.pod["spec"]["containers"][0]["env"] = [{"name": "X", "value": "x" * 100_000}]
    own = settings.model_copy(update={"kubernetes_api_server": api.url, "pods_page": 40, "pods_page_bytes": 1_000_000})
    cluster: Cluster = connect(own)
    uids: list[str] = []
    sizes: list[int] = []
    token = ""
    while token or not sizes:
        page = cluster.page(token)
        token = page.next
        sizes.append(len(json.dumps(page.pods)))
        uids += [pod["metadata"]["uid"] for pod in page.pods]
    assert sorted(uids) == sorted(sent.uid for sent in pods)
    assert max(sizes) < 1_100_000
    limits = [int(asked.partition("limit=")[2].partition("&")[0]) for asked in api.asked]
    assert (limits[0], min(limits) <= 10, limits[-1]) == (40, True, 40)


@pytest.mark.fault("B4")
def test_a_pod_that_is_larger_than_a_page_is_listed(settings: Settings, api: ApiServer) -> None:
    pods = some_pods(api, 3)
    own = settings.model_copy(update={"kubernetes_api_server": api.url, "pods_page_bytes": 100})
    cluster, uids, token = connect(own), set(), ""
    for _ in pods:
        page = cluster.page(token)
        token = page.next
        uids |= {pod["metadata"]["uid"] for pod in page.pods}
    assert (uids, token) == ({sent.uid for sent in pods}, "")
