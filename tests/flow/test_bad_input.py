"""Bad and odd input at the running functions: no 500, nothing stored of bad input, and odd input stored equal."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from dev.process.child import wait_until
from tests.bad_input import BAD, MAX_EVENTS, ODD, ODD_BATCH, Bad, Odd, Request
from tests.helpers import ARRIVES_WITHIN_S, View, altered, an_event, with_headers_of
from tests.strategies import structured
from twofold.cloudevents.encode import MAX_ATTRIBUTES_BYTES, MAX_OTHER_ATTRIBUTES, attributes_of
from twofold.event.identity import event_id_of
from twofold.event.model import Event
from twofold.mongo.client import RAW_CODEC
from twofold.mongo.documents import event_of

pytestmark = pytest.mark.guarantee("G1", "R3")

MAX_BODY_BYTES = 4 * 1024 * 1024


def post(flow: View, request: Request) -> httpx.Response:
    return flow.http.post(flow.stack.publish_url, headers=request.headers, content=request.body)


def problem_in(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    return body


@pytest.fixture
def nothing_stored(flow: View) -> Iterator[None]:
    """Check that the test stores no event. No other test publishes meanwhile."""
    before = flow.database.events.count_documents({})
    yield
    assert flow.database.events.count_documents({}) == before


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in BAD if not bad.raw])
def test_is_rejected(flow: View, bad: Bad) -> None:
    answer = post(flow, bad.request)

    assert answer.status_code == bad.error.status
    body = problem_in(answer)
    problems = body.get("errors", [])
    assert body["title"] == bad.error.title
    assert bad.says in " ".join([body["detail"], *(problem["what"] for problem in problems)])
    assert bad.where is None or bad.where in [problem["where"] for problem in problems]


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(("query", "where"), [("dryrun=true", "dryrun"), ("user[$ne]=x", "user[$ne]"), ("x", "query")])
def test_an_unknown_parameter_is_rejected_by_name(flow: View, query: str, where: str) -> None:
    """The caller expects an effect of the parameter, so an accepted event would be a surprise."""
    answer = flow.publish(an_event(), f"{flow.stack.publish_url}/?{query}")
    assert answer.status_code == 400
    assert problem_in(answer)["errors"][0]["where"] == where


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in BAD if bad.raw])
def test_invalid_http_is_rejected_before_the_function(flow: View, bad: Bad) -> None:
    """No client library sends these bytes, so the test writes to a socket."""
    parts = httpx.URL(flow.stack.publish_url)
    head = b"".join(b"%b: %b\r\n" % header for header in bad.request.headers)
    request = b"POST / HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (
        head,
        len(bad.request.body),
        bad.request.body,
    )
    with socket.create_connection((parts.host, parts.port or 80), timeout=10) as connection:
        connection.sendall(request)
        status_line = connection.makefile("rb").readline()

    assert status_line.split()[1] in {b"400", b"422"}


@pytest.mark.guarantee("G2", "R26")
@pytest.mark.parametrize("odd", [pytest.param(odd, id=odd.name) for odd in ODD if odd.name != "the last moment"])
def test_is_accepted_and_stored_equal_in_both_collections(flow: View, odd: Odd) -> None:
    given = str(uuid4())

    answer = post(flow, odd.request.with_id(given))

    assert answer.status_code == 202, answer.text
    assert answer.json() == {"id": given, "event_id": answer.json()["event_id"], "result": "accepted"}
    event_id = UUID(answer.json()["event_id"])
    projected = stored(flow, "events", event_id)
    assert projected is not None
    assert event_id == event_id_of(projected.metadata.service_name, given)
    assert text(projected.payload) == text(odd.payload)
    attributes = attributes_of(projected) | {"datacontenttype": projected.metadata.data_content_type}
    assert odd.attributes.items() <= attributes.items()
    assert not set(odd.absent) & attributes.keys()
    assert wait_until(lambda: stored(flow, "event_store", event_id) is not None, within=ARRIVES_WITHIN_S, every=0.02)
    assert stored(flow, "event_store", event_id) == projected


def stored(flow: View, collection: str, event_id: UUID) -> Event | None:
    """Return the event in a collection, and check its digest."""
    undecoded = flow.database[collection].with_options(codec_options=RAW_CODEC)
    document = undecoded.find_one({"_id": event_id})
    if document is None:
        return None
    event = event_of(document)
    assert event.digest == document["digest"]
    return event


def text(payload: object) -> str:
    """Return sorted JSON, or Python's form of other data. It distinguishes -0.0 from 0.0 and 1 from 1.0."""
    return json.dumps(payload, sort_keys=True, default=repr)


def test_a_bad_event_does_not_affect_its_batch(flow: View) -> None:
    """Every event has its own result in its place, and the good events are stored."""
    ids = [uuid4(), uuid4()]
    before = flow.database.events.count_documents({})
    request = ODD_BATCH.with_id(str(ids[0]))
    request = Request(request.headers, request.body.replace(b'"id": "d"', f'"id": "{ids[1]}"'.encode()))

    answer = post(flow, request)

    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [202, 422, 400, 422, 202]
    assert [result.get("id") for result in results] == [str(ids[0]), "b", None, "c", str(ids[1])]
    assert [result["errors"][0]["where"] for result in results if "errors" in result] == ["time", "data.a"]
    assert flow.database.events.count_documents({}) == before + 2
    assert all(stored(flow, "events", event_id_of("/shop", str(given))) for given in ids)


@pytest.mark.usefixtures("nothing_stored")
def test_a_batch_of_bad_events_stores_nothing(flow: View) -> None:
    headers = {"content-type": "application/cloudevents-batch+json"}
    answer = flow.http.post(flow.stack.publish_url, headers=headers, json=[{}] * MAX_EVENTS)

    assert answer.status_code == 422
    assert {result["status"] for result in answer.json()["results"]} == {400}


# --- too large -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_stored")
def test_a_body_over_the_limit_is_rejected(flow: View) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    answer = flow.http.post(flow.stack.publish_url, headers=headers, content=b" " * (MAX_BODY_BYTES + 1))

    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in problem_in(answer)["detail"]


@pytest.mark.usefixtures("nothing_stored")
def test_a_body_over_the_limit_without_a_length_is_rejected(flow: View) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    chunks = (b" " * 65_536 for _ in range(MAX_BODY_BYTES // 65_536 + 1))
    answer = flow.http.post(flow.stack.publish_url, headers=headers, content=chunks)

    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 413
    assert problem_in(answer)["title"] == "too-large"


@pytest.mark.usefixtures("nothing_stored")
def test_a_body_of_the_limit_is_read(flow: View) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    answer = flow.http.post(flow.stack.publish_url, headers=headers, content=b"[]".rjust(MAX_BODY_BYTES))

    assert answer.status_code == 400


@pytest.mark.usefixtures("nothing_stored")
def test_an_event_larger_than_a_record_is_rejected(flow: View) -> None:
    """The body is below the limit of a body, and its record is above the limit of a record."""
    answer = flow.publish(an_event(payload={"a": "x" * 1_000_000}))

    assert answer.status_code == 413
    assert "without white space" in problem_in(answer)["detail"]


@pytest.mark.guarantee("R26")
@pytest.mark.parametrize("form", ["binary", "batch"])
def test_the_largest_accepted_attributes_reach_the_log(flow: View, form: str) -> None:
    """Twofold, Kafka and the KafkaSource add attributes on the way. One more byte is rejected."""
    largest, larger = (with_headers_of(MAX_ATTRIBUTES_BYTES + more) for more in (0, 1))

    accepted, rejected = (
        flow.publish(event) if form == "binary" else flow.publish_all([event]) for event in (largest, larger)
    )

    assert accepted.status_code == 202, accepted.text
    assert rejected.status_code == 422
    assert f"at most {MAX_ATTRIBUTES_BYTES} are allowed" in rejected.text
    assert flow.held("events", [largest, larger]) == {largest.event_id}
    assert flow.arrive([largest])
    assert flow.dead_letters(largest) == []


@pytest.mark.fault("B9")
@pytest.mark.usefixtures("nothing_stored")
def test_a_time_of_the_year_9999_is_rejected(flow: View) -> None:
    """It would be first on every newest page until it expires."""
    answer = flow.publish(an_event(timestamp=datetime(9999, 12, 31, tzinfo=UTC)))

    assert answer.status_code == 422
    assert problem_in(answer)["errors"][0]["where"] == "time"


@pytest.mark.fault("B1")
def test_the_largest_number_of_attributes_reaches_the_log(flow: View) -> None:
    largest, larger = (
        an_event(
            metadata={"service_name": "/s", "extensions": {f"x{n}": "1" for n in range(MAX_OTHER_ATTRIBUTES - number)}}
        )
        for number in (5, 4)
    )

    accepted, rejected = flow.publish(largest), flow.publish(larger)

    assert (accepted.status_code, rejected.status_code) == (202, 422)
    assert flow.arrive([largest])


# --- replays ---------------------------------------------------------------------------------------------------------


def replay(flow: View, event: Event) -> httpx.Response:
    headers, body = structured(attributes_of(event) | {"replayid": "r"}, event.payload)
    return flow.http.post(flow.stack.publish_url, headers=headers, content=body)


@pytest.mark.guarantee("G8")
@pytest.mark.usefixtures("nothing_stored")
def test_a_replay_of_an_unknown_event_is_rejected(flow: View) -> None:
    answer = replay(flow, an_event())

    assert answer.status_code == 422
    assert problem_in(answer)["title"] == "unknown-replay"


@pytest.mark.guarantee("G8")
def test_a_replay_of_a_known_event_is_a_duplicate(flow: View) -> None:
    event = an_event()
    flow.publish(event)
    before = flow.document("events", event)

    answer = replay(flow, event)

    assert (answer.status_code, answer.json()["result"]) == (202, "duplicate")
    after = flow.document("events", event)
    assert before is not None
    assert after is not None
    assert after["seq"] == before["seq"]


@pytest.mark.guarantee("G8")
def test_a_replay_with_other_content_is_a_conflict(flow: View) -> None:
    event = an_event()
    flow.publish(event)

    answer = replay(flow, altered(event))

    assert answer.status_code == 422
    assert problem_in(answer)["title"] == "identity-conflict"
    kept = stored(flow, "events", event.event_id)
    assert kept is not None
    assert kept.digest == event.digest
