"""Any CloudEvent is taken over HTTP in every mode, and every reader gives it back equal. The judge is independent.

All events of the module are published at first: the fixtures as they are, and their events again in the other modes
under another id. Each test then compares a fixture's events in MongoDB, in Kafka and in the readers' answers.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from kafka import KafkaConsumer, TopicPartition

from dev.process.child import wait_until
from tests.carried import through_kafka_source
from tests.cloud_events import FIXTURES, Fixture, Json, Request, batch, binary, renamed, structured
from tests.equal_events import ComparableEvent, differences, of_cloud_event, of_document, of_reader, of_record
from tests.helpers import ARRIVES_WITHIN_S, View, bearer
from twofold.cloudevents.encode import KafkaRecord

pytestmark = pytest.mark.guarantee("R5", "R26")

READERS = ("query", "audit", "export", "feed")
_PAGE = 1000


@dataclass
class Published:
    """An event that `publish` was asked to take."""

    expected: Json
    way: str
    """The mode of the request."""
    status: int
    result: Json
    """`event_id` and `result`, or the problem."""

    @property
    def event_id(self) -> str:
        return str(self.result.get("event_id"))


@dataclass
class Everything:
    """All published events, and the events that each reader gives, by their `event_id`."""

    by_fixture: dict[str, list[Published]] = field(default_factory=dict)
    documents: dict[str, dict[str, Json]] = field(default_factory=dict)
    """The documents by collection and by `_id`."""
    records: dict[str, tuple[Mapping[str, bytes], bytes | None]] = field(default_factory=dict)
    """The headers and the values of the records by digest."""
    readers: dict[str, dict[str, Json]] = field(default_factory=dict)

    @property
    def accepted(self) -> set[str]:
        events = [event for events in self.by_fixture.values() for event in events]
        return {event.event_id for event in events if event.status == 202}

    def taken(self, name: str) -> list[Published]:
        """Return the events of a fixture. Fails with the problems of refused events."""
        sent = self.by_fixture[name]
        assert [(event.way, event.status, event.result) for event in sent if event.status != 202] == []
        return sent


def request_of(fixture: Fixture) -> Request:
    """Return the fixture's request. A KafkaSource brings a record. `publish` gives no result for its `Prefer`."""
    if not fixture.is_kafka:
        return fixture.request
    headers = [(name, value.encode()) for name, value in fixture.headers.items()]
    carried, body = through_kafka_source(KafkaRecord(b"", fixture.body, headers))
    return [(name, value) for name, value in carried if name.startswith(b"ce-") or name == b"content-type"], body


def published(flow: View, events: Iterable[Json], way: str, request: Request) -> list[Published]:
    """Post a request with these events."""
    headers, body = request
    answer = flow.http.post(flow.stack.publish_url, headers=[*headers], content=body)
    content = answer.json()
    results = content.get("results", [content])
    statuses = [result.get("status", answer.status_code) for result in results]
    triples = zip(events, statuses, results, strict=True)
    return [Published(event, way, status, result) for event, status, result in triples]


def publish_all(flow: View) -> Everything:
    """Publish each fixture as it is. Publish its events again: in one batch, and in the modes for single events."""
    found = Everything()
    for fixture in FIXTURES:
        found.by_fixture[fixture.name] = published(flow, fixture.events, fixture.mode, request_of(fixture))
    again = [fixture for fixture in FIXTURES if fixture.duplicate_of is None]
    in_batch = [(fixture, renamed(event, "batch")) for fixture in again for event in fixture.events]
    for start in range(0, len(in_batch), 100):
        part = in_batch[start : start + 100]
        results = published(flow, [event for _, event in part], "batch", batch([event for _, event in part]))
        for (fixture, _), result in zip(part, results, strict=True):
            found.by_fixture[fixture.name].append(result)
    for fixture in again:
        for event in fixture.events:
            for way, encode in (("binary", binary), ("structured", structured)):
                copy = renamed(event, way)
                request = encode(copy)
                if request is not None and way != fixture.mode:
                    found.by_fixture[fixture.name] += published(flow, [copy], way, request)
    return found


def pages(get: Callable[..., Json], path: str) -> dict[str, Json]:
    """Return the events of all pages by their id."""
    page = get(path, limit=_PAGE)
    events = [*page["events"]]
    while page["next"] is not None:
        page = get(path, limit=_PAGE, cursor=page["next"])
        events += page["events"]
    return {event["event_id"]: event for event in events}


def records_of(flow: View) -> dict[str, tuple[Mapping[str, bytes], bytes | None]]:
    """Return the headers and the values of all records in the topic, by digest."""
    found: dict[str, tuple[Mapping[str, bytes], bytes | None]] = {}
    consumer = KafkaConsumer(bootstrap_servers=flow.stack.kafka, auto_offset_reset="earliest", enable_auto_commit=False)
    with consumer:
        partitions = [
            TopicPartition(flow.stack.topic, number) for number in consumer.partitions_for_topic(flow.stack.topic)
        ]
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    headers = dict(record.headers)
                    found[headers.get("ce_twofolddigest", b"").decode()] = (headers, record.value)
    return found


@pytest.fixture(scope="module")
def everything(flow: View) -> Everything:
    """Publish all events, wait for the log and the feed, and read them with every reader."""
    since = datetime.now(UTC) - timedelta(seconds=5)
    found = publish_all(flow)
    accepted = found.accepted
    wanted = {"_id": {"$in": [UUID(event_id) for event_id in accepted]}}

    def ask(function: str, *permissions: str) -> Callable[..., Json]:
        headers = bearer("judge", *permissions) if permissions else bearer()

        def get(path: str, **parameters: Any) -> Json:
            answer = flow.http.get(flow.stack.functions[function].url + path, params=parameters, headers=headers)
            assert answer.status_code == 200, answer.text
            content: Json = answer.json()
            return content

        return get

    def arrived() -> bool:
        return bool(flow.database.event_store.count_documents(wanted) == len(accepted))

    wait_until(arrived, within=ARRIVES_WITHIN_S, every=0.2)  # a test names an event that did not arrive
    for collection in ("events", "event_store"):
        documents = flow.database[collection].find(wanted)
        found.documents[collection] = {str(document["_id"]): document for document in documents}
    found.records = records_of(flow)
    found.readers["query"] = pages(ask("query"), "/events")
    found.readers["audit"] = pages(ask("audit"), "/events")
    lines = flow.http.get(flow.stack.functions["admin"].url + "/export", params={"format": "ndjson"}).text.splitlines()
    found.readers["export"] = {event["event_id"]: event for event in map(json.loads, lines)}
    found.readers["feed"] = {}
    position: Json = {"since": since.isoformat()}

    def fed() -> bool:
        batch_ = ask("audit")("/feed", **position, limit=_PAGE)
        position.clear()
        position["cursor"] = batch_["cursor"]
        found.readers["feed"] |= {event["event_id"]: event for event in batch_["events"]}
        return accepted <= found.readers["feed"].keys()

    wait_until(fed, within=20.0, every=0.3)
    return found


FIRST = [fixture for fixture in FIXTURES if fixture.duplicate_of is None]
RETRIED = [fixture for fixture in FIXTURES if fixture.duplicate_of is not None]


def all_forms(everything: Everything, event: Published) -> dict[str, ComparableEvent]:
    """Return the event in the form of each place that holds it."""
    event_id = event.event_id
    found = {name: of_document(documents[event_id]) for name, documents in everything.documents.items()}
    found |= {name: of_reader(events[event_id]) for name, events in everything.readers.items()}
    headers, value = everything.records[bytes(everything.documents["events"][event_id]["digest"]).hex()]
    return found | {"kafka": of_record(headers.items(), value)}


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("fixture", FIRST, ids=lambda fixture: fixture.name)
def test_an_event_is_taken_in_every_mode_and_comes_back_equal(everything: Everything, fixture: Fixture) -> None:
    """MongoDB, the record in Kafka, pages, the export and the feed hold the event as the producer sent it."""
    sent = everything.taken(fixture.name)
    assert [event.result["result"] for event in sent] == ["accepted"] * len(sent)
    for event in sent:
        wanted = of_cloud_event(event.expected)
        wrong = {place: differences(wanted, found) for place, found in all_forms(everything, event).items()}
        assert {place: lines for place, lines in wrong.items() if lines} == {}, event.way


@pytest.mark.parametrize("fixture", FIRST, ids=lambda fixture: fixture.name)
def test_every_place_has_the_same_identity_digest_and_order(everything: Everything, fixture: Fixture) -> None:
    for event in everything.taken(fixture.name):
        first = everything.documents["events"][event.event_id]
        second = everything.documents["event_store"][event.event_id]
        shown = [events[event.event_id] for events in everything.readers.values()]
        headers, _ = everything.records[bytes(first["digest"]).hex()]
        assert UUID(event.event_id).version == 8
        assert {bytes(second["digest"]).hex(), *(one["digest"] for one in shown)} == {bytes(first["digest"]).hex()}
        assert {second["order"], int(headers["ce_twofoldorder"]), *(int(one["order"]) for one in shown)} == {
            first["order"]
        }
        assert {one["id"] for one in shown} == {event.expected["id"]}
        assert not any("altered" in one for one in shown)


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize("fixture", RETRIED, ids=lambda fixture: fixture.name)
def test_a_retry_through_other_hops_is_a_duplicate(everything: Everything, fixture: Fixture) -> None:
    """A Broker stamps its arrival time and its trace anew. The first values are kept."""
    (retry,) = everything.taken(fixture.name)
    (first, *_) = everything.taken(str(fixture.duplicate_of))
    assert retry.result["result"] == "duplicate"
    assert retry.event_id == first.event_id
    wanted = of_cloud_event(first.expected)
    assert wanted.hops != of_cloud_event(retry.expected).hops
    assert differences(wanted, of_document(everything.documents["event_store"][first.event_id])) == []


@pytest.mark.guarantee("G2")
def test_two_sources_with_one_uuid_are_two_events(everything: Everything) -> None:
    (shop, *_), (billing, *_) = everything.taken("k04-shop"), everything.taken("k04-billing")
    assert shop.expected["id"] == billing.expected["id"]
    assert (shop.result["result"], billing.result["result"]) == ("accepted", "accepted"), billing.result
    assert shop.event_id != billing.event_id


def test_an_event_is_found_by_its_identity(everything: Everything, flow: View) -> None:
    for name in ("k04-shop", "k04-billing", "attribute-planes"):
        event = everything.taken(name)[0]
        answer = flow.http.get(f"{flow.stack.functions['query'].url}/events/{event.event_id}")
        assert answer.status_code == 200, answer.text
        assert differences(of_cloud_event(event.expected), of_reader(answer.json())) == []


@pytest.mark.parametrize("function", ["query", "audit", "admin"])
def test_an_event_is_found_by_source_and_id(everything: Everything, flow: View, function: str) -> None:
    for name in ("k04-shop", "k04-billing", "attribute-planes", "attribute-id-spaces", "s10", "id-uuid-upper-case"):
        event = everything.taken(name)[0]
        asked = {"source": event.expected["source"], "id": event.expected["id"]}
        answer = flow.http.get(f"{flow.stack.functions[function].url}/event", params=asked)
        assert answer.status_code == 200, answer.text
        shown = answer.json()["event"] if function == "admin" else answer.json()
        assert shown["event_id"] == event.event_id
        assert differences(of_cloud_event(event.expected), of_reader(shown)) == []


def test_the_same_data_in_another_form_is_a_duplicate(flow: View) -> None:
    """`data` and `data_base64` of the same bytes are one event, and so are an absent type and `application/json`."""
    event: Json = {"specversion": "1.0", "source": "/forms", "type": "t"}
    pairs: list[tuple[Json, Json]] = [
        ({"data": "ü", "datacontenttype": "text/plain"}, {"data_base64": "w7w=", "datacontenttype": "text/plain"}),
        ({"data": {"a": 1}}, {"data": {"a": 1}, "datacontenttype": "application/json"}),
        ({"data": {"a": 1}}, {"data_base64": "eyJhIjogMX0=", "datacontenttype": "application/json"}),
        ({"datacontenttype": "image/png"}, {"data_base64": "", "datacontenttype": "image/png"}),
        ({"data": "x", "datacontenttype": "image/x"}, {"data_base64": "eA==", "datacontenttype": "image/x"}),
    ]
    for number, (first, second) in enumerate(pairs):
        results = [
            published(flow, [form], "structured", structured(event | {"id": f"form-{number}"} | form))[0].result
            for form in (first, second)
        ]
        assert [result.get("result") for result in results] == ["accepted", "duplicate"], results


def test_other_data_under_one_identity_are_a_conflict(flow: View) -> None:
    """The digest has the kinds and the types of the data."""
    event: Json = {"specversion": "1.0", "source": "/conflicts", "type": "t"}
    pairs: list[tuple[Json, Json]] = [
        ({"data": 1}, {"data": 1.0}),
        ({"data": 1}, {"data": True}),
        ({"data": None}, {}),
        ({"data": {}}, {}),
        ({"data": "1"}, {"data": 1}),
        ({"data": "MQ=="}, {"data_base64": "MQ=="}),
        ({"data": "1", "datacontenttype": "text/plain"}, {"data": "1", "datacontenttype": "text/xml"}),
    ]
    for number, (first, second) in enumerate(pairs):
        for form, status in ((first, 202), (second, 422)):
            (sent,) = published(flow, [form], "structured", structured(event | {"id": f"conflict-{number}"} | form))
            assert sent.status == status, (form, sent.result)
