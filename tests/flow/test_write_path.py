"""The main job over HTTP: from the request of a producer to both collections, on the shared stack."""

import asyncio
import gzip
import json
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from kafka import KafkaProducer

from dev.process.child import wait_until
from dev.stack import Stack
from tests.conftest import Spawner
from tests.helpers import (
    View,
    altered,
    an_event,
    callers,
    delivered,
    failing,
    ids,
    plain_record,
    settings_of,
    some_events,
    structured,
)
from twofold.cloudevents.decode_kafka import DeliveredEvent
from twofold.cloudevents.encode import encode_http, encode_kafka
from twofold.errors import Conflict
from twofold.event.model import Event
from twofold.mongo.client import open_database
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.failed_delivery import DeadLetter

OWN = {"stored_at", "seq"}
"""The fields that the insert adds, by collection."""


def put(stack: Stack, value: bytes, headers: list[tuple[str, bytes]], key: bytes | None = None) -> tuple[int, int]:
    """Put a record into the topic past `publish`, and return its place."""
    with KafkaProducer(bootstrap_servers=stack.kafka) as producer:
        where = producer.send(stack.topic, value, key, headers).get(20)
    return where.partition, where.offset


def writes(flow: View) -> int:
    """Return the number of write commands in `events` on the server."""
    (stats,) = flow.database.events.aggregate([{"$collStats": {"latencyStats": {}}}])
    return int(stats["latencyStats"]["writes"]["ops"])


def dead_letters_at(flow: View, partition: int, offset: int) -> list[dict[str, Any]]:
    """Wait for the dead letters of the record at this place, and return them."""
    query = {"kafka": {"partition": partition, "offset": offset}}
    wait_until(lambda: flow.database.dead_letters.count_documents(query) > 0, within=40.0, every=0.05)
    return list(flow.database.dead_letters.find(query))


class TestBothCollections:
    @pytest.mark.guarantee("G1", "G2", "R5")
    def test_a_published_event_is_in_both_collections_with_equal_fields(self, flow: View) -> None:
        """It is in `events` at once, and in `event_store` through Kafka, with any payload and attributes."""
        event = an_event(
            payload={"total": 3.5, "big": 2**60, "$ref": "a.b", "": {"ünïcode": ["😀", None, True, -0.0]}, "e": {}},
            metadata={
                "service_name": "https://shop.example/orders?x=%20y",
                "service_version": "2.1",
                "correlation_id": "c 1",
                "causation_id": str(uuid4()),
                "user_id": 'u"1%',
                "environment": "test",
                "ip_address": "::1",
                "user_agent": "curl/8 (x; y)",
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "extensions": {"tenant": "t-1", "dataschema": "/schemas/order"},
            },
        )
        answer = flow.publish(event)
        assert answer.status_code == 202
        operational = flow.document("events", event)
        assert operational is not None
        assert flow.arrive([event])
        permanent = flow.document("event_store", event)
        assert permanent is not None
        assert operational.keys() - permanent.keys() == {"outbox"}
        assert permanent.keys() - operational.keys() == {"kafka"}
        common = operational.keys() & permanent.keys() - OWN
        assert {name: operational[name] for name in common} == {name: permanent[name] for name in common}
        assert permanent["digest"] == event.digest
        assert json.dumps(permanent["payload"], sort_keys=True) == json.dumps(event.payload, sort_keys=True)

    @pytest.mark.guarantee("G5", "R2", "R34")
    def test_the_relay_confirms_an_event_and_starts_its_retention(self, flow: View) -> None:
        """The retention is three days in this stack, counted from the confirmation. The log has no expiry."""
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        before = flow.document("events", event)
        assert before is not None
        assert "outbox" in before
        assert "expires_at" not in before
        flow.relay(due=[event])
        after = flow.document("events", event)
        assert after is not None
        assert "outbox" not in after
        assert 3 * 86_400 - 60 < (after["expires_at"] - before["stored_at"]).total_seconds() < 3 * 86_400 + 60
        logged = flow.document("event_store", event)
        assert logged is not None
        assert not {"expires_at", "outbox"} & logged.keys()

    @pytest.mark.guarantee("G1")
    @pytest.mark.parametrize("form", ["binary", "structured", "batch"])
    def test_every_form_of_a_cloud_event_arrives(self, flow: View, form: str) -> None:
        event = an_event()
        if form == "binary":
            answer = flow.publish(event)
        elif form == "structured":
            headers = {"content-type": "application/cloudevents+json"}
            answer = flow.http.post(flow.stack.publish_url, headers=headers, json=structured(event))
        else:
            answer = flow.publish_all([event])
        assert answer.status_code == 202
        assert flow.arrive([event])

    @pytest.mark.guarantee("G1", "G2")
    def test_a_thousand_events_are_once_in_both_collections(self, flow: View) -> None:
        events = some_events(1000)
        for start in range(0, 1000, 250):
            assert flow.publish_all(events[start : start + 250]).status_code == 202
        assert len(flow.held("events", events)) == 1000
        assert flow.arrive(events)
        assert flow.relayed(events)
        assert flow.database.event_store.count_documents({"_id": ids(events)}) == 1000

    @pytest.mark.guarantee("R22")
    def test_an_aggregate_is_in_one_partition_in_order(self, flow: View) -> None:
        """Types and sources do not matter: there is one topic, and the aggregate's id is the key."""
        aggregate = f"order-{uuid4()}"
        events = [
            an_event(aggregate_id=aggregate, event_type=f"order.step{n}", metadata={"service_name": f"/service-{n}"})
            for n in range(20)
        ]
        for event in events:
            flow.publish(event)
        assert flow.arrive(events)
        logs = [(flow.document("event_store", event) or {})["kafka"] for event in events]
        assert len({log["partition"] for log in logs}) == 1
        assert [log["offset"] for log in logs] == sorted(log["offset"] for log in logs)


@pytest.mark.guarantee("G2")
class TestOnce:
    def test_an_event_sent_twice_is_a_duplicate_and_stored_once(self, flow: View) -> None:
        event = an_event()
        first, second = flow.publish(event), flow.publish(event)
        assert (first.status_code, second.status_code) == (202, 202)
        assert (first.json()["result"], second.json()["result"]) == ("accepted", "duplicate")
        assert first.json()["event_id"] == second.json()["event_id"] == str(event.event_id)
        assert flow.arrive([event])
        assert flow.relayed([event])

    def test_a_retry_without_a_time_is_the_same_event(self, flow: View) -> None:
        """`publish` gives the time, and the digest leaves it out."""
        event_id = str(uuid4())
        headers = {"ce-specversion": "1.0", "ce-id": event_id, "ce-type": "order.created", "ce-source": "/shop"}
        results = []
        for _ in range(2):
            answer = flow.http.post(flow.stack.publish_url, headers=headers, json={"a": 1})
            results.append(answer.json()["result"])
            time.sleep(0.01)
        assert results == ["accepted", "duplicate"]

    def test_a_duplicate_of_a_confirmed_event_changes_nothing(self, flow: View) -> None:
        """The event gets no new outbox entry and keeps its expiry."""
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        assert flow.relayed([event])
        before = flow.document("events", event)
        assert flow.publish(event).json()["result"] == "duplicate"
        assert flow.document("events", event) == before

    def test_a_conflict_is_rejected_and_changes_nothing(self, flow: View) -> None:
        event = an_event()
        flow.publish(event)
        answer = flow.publish(altered(event))
        assert answer.status_code == 422
        assert answer.json()["title"] == "identity-conflict"
        assert answer.headers["content-type"] == "application/problem+json"
        assert flow.arrive([event])

    def test_everything_delivered_again_changes_nothing(self, flow: View) -> None:
        """The producer, Kafka, the source and the relay repeat the event."""
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        before = flow.document("event_store", event)
        record = encode_kafka(event)
        put(flow.stack, record.value, list(record.headers), record.key)
        assert flow.store(delivered(event, offset=99)).status_code == 200
        assert flow.publish(event).json()["result"] == "duplicate"
        later = an_event()
        flow.publish(later)
        assert flow.arrive([later])
        assert flow.relayed([event])
        assert flow.document("event_store", event) == before
        assert flow.dead_letters(event) == []


@pytest.mark.guarantee("R3", "R7")
class TestRefused:
    def test_a_rejected_event_is_stored_nowhere(self, flow: View) -> None:
        event = an_event()
        headers, _ = encode_http(event)
        for body in (b"no json", b'["\\ud800"]', b'{"a":"\\ud800"}', b'{"a":NaN}'):
            answer = flow.http.post(flow.stack.publish_url, headers=headers, content=body)
            assert answer.status_code in (400, 422)
        assert flow.document("events", event) is None
        assert not flow.arrive([event], within=0.5)

    def test_an_invalid_event_does_not_spoil_a_batch(self, flow: View) -> None:
        """The answer is 207, with the results in the order of the batch."""
        there, good, conflicting = some_events(3)
        flow.publish_all([there, conflicting])
        members: list[Any] = [structured(good), {"specversion": "1.0"}, structured(there), 7]
        members += [structured(altered(conflicting)), structured(good)]
        headers = {"content-type": "application/cloudevents-batch+json"}
        answer = flow.http.post(flow.stack.publish_url, headers=headers, content=json.dumps(members))
        assert answer.status_code == 207
        results = answer.json()["results"]
        assert [result["status"] for result in results] == [202, 400, 202, 400, 422, 202]
        assert [result.get("result") for result in results] == [
            "accepted",
            None,
            "duplicate",
            None,
            None,
            "duplicate",
        ]
        assert results[4]["title"] == "identity-conflict"
        assert [result.get("id") for result in results] == [
            good.id,
            None,
            there.id,
            None,
            conflicting.id,
            good.id,
        ]
        assert flow.arrive([good])

    def test_an_empty_batch_is_accepted(self, flow: View) -> None:
        answer = flow.publish_all([])
        assert (answer.status_code, answer.json()) == (202, {"results": []})

    def test_a_batch_of_refused_events_is_refused_for_good(self, flow: View) -> None:
        """No event is to be sent again, so the status is a 4xx. Each result names its event."""
        first, second = some_events(2)
        flow.publish_all([first, second])
        answer = flow.publish_all([altered(first), altered(second)])
        assert answer.status_code == 422
        assert "retry-after" not in answer.headers
        results = answer.json()["results"]
        assert [(result["id"], result["title"]) for result in results] == [
            (event.id, "identity-conflict") for event in (first, second)
        ]

    async def test_a_batch_without_an_accepted_event_is_sent_again_if_a_result_can_change(self, flow: View) -> None:
        """The refused event keeps its own error, though MongoDB takes no event."""
        first, second = some_events(2)
        members: list[Any] = [structured(first), {"id": "bad"}, structured(second)]
        headers = {"content-type": "application/cloudevents-batch+json"}
        async with (
            open_database(settings_of(flow.stack), "tests") as database,
            failing(database, "publish", times=10, errorCode=8),
        ):
            answer = flow.http.post(flow.stack.publish_url, headers=headers, content=json.dumps(members))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        results = answer.json()["results"]
        assert [result["status"] for result in results] == [503, 400, 503]
        assert [result["id"] for result in results] == [first.id, "bad", second.id]
        assert flow.held("events", [first, second]) == set()

    async def test_500_events_at_once_get_their_own_answers(self, flow: View) -> None:
        """A duplicate, a conflict and invalid events are among them. MongoDB gets 50 inserts at most."""
        there, conflicting = some_events(2)
        flow.publish_all([there, conflicting])
        good = some_events(496)
        headers, _ = encode_http(an_event())
        requests = [encode_http(event) for event in good]
        requests[100:100] = [encode_http(there), encode_http(altered(conflicting)), (headers, b"no json")]
        requests.insert(300, (headers, b'{"a":"\\ud800"}'))
        before = writes(flow)
        hold = {"blockConnection": True, "blockTimeMS": 1000}  # while the requests are sent, even on a slow machine
        async with (
            callers(500) as sending,
            open_database(settings_of(flow.stack), "tests") as database,
            failing(database, "publish", times=2, **hold),
        ):
            answers = await sending.post_all(flow.stack.publish_url, requests)
        statuses = [answer.status for answer in answers]
        assert statuses[100:103] == [202, 422, 400]
        assert statuses.pop(300) == 422
        assert statuses[:100] + statuses[103:] == [202] * 496
        assert answers[100].json()["result"] == "duplicate"
        assert len(flow.held("events", good)) == 496
        assert writes(flow) - before <= 50


@pytest.mark.guarantee("G4", "R8", "R10")
class TestPoison:
    def test_a_plain_record_in_the_topic_is_kept_and_blocks_nothing(self, flow: View) -> None:
        """Its bytes, its reason and its place are kept. The record after it in the partition arrives."""
        body = b"\x00\xffnot ours" + uuid4().bytes
        event = an_event()
        key = encode_kafka(event).key
        partition, offset = put(flow.stack, body, [], key)
        flow.publish(event)
        assert flow.arrive([event])
        (dead_letter,) = dead_letters_at(flow, partition, offset)
        assert (dead_letter["body"], dead_letter["reason"], dead_letter["state"]) == (body, "malformed", "dead")

    @pytest.mark.slow
    def test_an_altered_record_is_a_dead_letter_and_the_event_itself_still_arrives(self, flow: View) -> None:
        """The relay sends the published event again."""
        event = an_event()
        record = encode_kafka(event)
        flow.accept(event)
        partition, offset = put(flow.stack, b'{"total":1000000}', list(record.headers), record.key)
        (dead_letter,) = dead_letters_at(flow, partition, offset)
        assert dead_letter["reason"] == "digest-mismatch"
        assert flow.document("event_store", event) is None
        assert flow.relayed([event])
        assert flow.held("event_store", [event])

    def test_a_conflict_in_the_topic_is_a_dead_letter_and_the_log_keeps_the_first_event(self, flow: View) -> None:
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        record = encode_kafka(altered(event))
        partition, offset = put(flow.stack, record.value, list(record.headers), record.key)
        (dead_letter,) = dead_letters_at(flow, partition, offset)
        assert dead_letter["reason"] == "identity-conflict"
        assert flow.held("event_store", [event])

    def test_store_answers_200_for_poison_and_counts_its_redelivery(self, flow: View) -> None:
        """Knative must neither retry it nor send it to the dead-letter sink."""
        request = plain_record(b"poison" + uuid4().bytes, partition=70, offset=1)
        assert [flow.store(request).status_code for _ in range(3)] == [200, 200, 200]
        (dead_letter,) = dead_letters_at(flow, 70, 1)
        assert dead_letter["times"] == 3

    @pytest.mark.guarantee("G5", "G10")
    def test_an_event_that_became_a_dead_letter_never_expires(self, flow: View) -> None:
        """Its outbox entry stays, without a next try."""
        event = an_event()
        flow.accept(event)
        asyncio.run(keep_dead_letter(flow, event))
        assert flow.relay(due=[event])["dead"] == 1
        document = flow.document("events", event)
        assert document is not None
        assert document["outbox"] == {"tries": 0, "state": "dead"}
        assert "expires_at" not in document


async def keep_dead_letter(flow: View, event: Event) -> None:
    """Keep a dead letter of the event, as `store` does for a conflict in the log."""
    async with open_database(settings_of(flow.stack), "tests") as database:
        reason = Conflict("this id belongs to another event in the log")
        await DeadLetters(database).keep(
            DeadLetter(*delivered(event), reason, 0, 0, DeliveredEvent(event.to_document()))
        )


@pytest.mark.guarantee("G8")
class TestReplayed:
    def test_a_replay_of_a_known_event_writes_nothing(self, flow: View) -> None:
        event = an_event()
        flow.publish(event)
        assert flow.arrive([event])
        digest = {"ce-replayid": "r-1", "ce-twofolddigest": event.digest.hex(), "ce-twofoldorder": "7"}
        answer = flow.publish(event, **digest)
        assert (answer.status_code, answer.json()["result"]) == (202, "duplicate")
        assert flow.store(delivered(event, replayid="r-1")).status_code == 200
        assert flow.dead_letters(event) == []

    @pytest.mark.slow
    @pytest.mark.guarantee("G1", "R2", "R12")
    def test_a_replay_of_an_event_that_is_not_in_the_log_yet_stops_nothing(self, flow: View) -> None:
        """`store` rejects the replay, and the relay still brings the event to the log."""
        event = an_event()
        flow.accept(event)
        assert flow.store(delivered(event, replayid="r-1")).status_code == 200
        assert [dead_letter["reason"] for dead_letter in flow.dead_letters(event)] == ["unknown-replay"]
        assert flow.relayed([event])
        assert flow.held("event_store", [event])
        assert [dead_letter["state"] for dead_letter in flow.dead_letters(event)] == ["stored"]

    def test_a_replay_of_an_unknown_event_is_rejected(self, flow: View) -> None:
        event = an_event()
        replayed = {"ce-replayid": "r-1", "ce-twofolddigest": event.digest.hex(), "ce-twofoldorder": "7"}
        answer = flow.publish(event, **replayed)
        assert (answer.status_code, answer.json()["title"]) == (422, "unknown-replay")
        assert flow.store(delivered(event, replayid="r-1")).status_code == 200
        assert flow.held("events", [event]) == flow.held("event_store", [event]) == set()
        assert [dead_letter["reason"] for dead_letter in flow.dead_letters(event)] == ["unknown-replay"]


class TestEdge:
    @pytest.mark.parametrize("form", ["binary", "batch"])
    def test_a_body_in_gzip_is_stored_as_the_plain_body(self, flow: View, form: str) -> None:
        """The batch is large enough for the thread."""
        events = some_events(1 if form == "binary" else 200)
        headers, body = encode_http(events[0])
        if form == "batch":
            headers = {"content-type": "application/cloudevents-batch+json"}
            body = json.dumps([structured(event) for event in events]).encode()
        compressed = gzip.compress(body)
        answer = flow.http.post(
            flow.stack.publish_url, headers=headers | {"content-encoding": "gzip"}, content=compressed
        )
        assert answer.status_code == 202, answer.text
        assert flow.held("events", events) == {event.event_id for event in events}

    @pytest.mark.parametrize("name", ["publish", "store", "dead_letters"])
    def test_an_unknown_coding_is_refused_with_the_supported_coding(self, flow: View, name: str) -> None:
        event = an_event()
        headers, body = encode_http(event)
        answer = flow.http.post(
            flow.stack.functions[name].url, headers=headers | {"content-encoding": "br"}, content=body
        )
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")
        assert answer.json()["title"] == "unsupported-coding"
        assert "'br'" in answer.json()["detail"]
        assert flow.document("events", event) is None

    def test_a_gzip_bomb_is_refused(self, flow: View) -> None:
        """The body has 100 KiB, and decodes to 100 MiB."""
        headers = {"content-type": "application/cloudevents+json", "content-encoding": "gzip"}
        answer = flow.http.post(
            flow.stack.publish_url, headers=headers, content=gzip.compress(b" " * 100 * 1024 * 1024, 6)
        )
        assert (answer.status_code, answer.json()["title"]) == (413, "too-large")

    def test_a_webhook_is_registered_without_a_token_by_an_allowed_origin_alone(
        self, flow: View, spawn: Spawner
    ) -> None:
        """The request is that of Azure Event Grid. The permission to publish still needs a token."""
        headers = {"webhook-request-origin": "eventgrid.azure.net", "webhook-request-rate": "120"}
        closed = httpx.options(flow.stack.publish_url, headers=headers)
        assert closed.status_code == 403
        assert "WEBHOOK_ORIGINS" in closed.json()["detail"]
        assert not [name for name in closed.headers if name.startswith("webhook-")]

        opened = spawn("publish", WEBHOOK_ORIGINS="eventgrid.azure.net, a.example").url
        answer = httpx.options(opened, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
        assert answer.headers["webhook-allowed-rate"] == "120"
        assert answer.headers["allow"] == "POST, OPTIONS"
        assert httpx.options(opened, headers=headers | {"webhook-request-origin": "b.example"}).status_code == 403
        assert httpx.options(opened).status_code == 204
        assert httpx.options(f"{opened}/other", headers=headers).status_code == 404
        own, body = encode_http(an_event())
        refused = httpx.post(opened, headers=own | headers, content=body)
        assert refused.status_code == 401

    @pytest.mark.parametrize("prefer", ["reply", "Reply", "respond-async, reply; x=1", "wait=10,reply"])
    def test_a_sink_that_is_asked_not_to_reply_sends_no_body(self, flow: View, prefer: str) -> None:
        """A Broker would read a body as an event, and answer 502. The preference may stand beside others (RFC 7240)."""
        answer = flow.publish(an_event(), prefer=prefer)
        assert (answer.status_code, answer.content) == (202, b"")
        batch = flow.publish_all(some_events(2), prefer=prefer)
        assert (batch.status_code, batch.content) == (202, b"")

    def test_rejected_events_of_a_batch_are_reported_to_every_caller(self, flow: View) -> None:
        there, new = some_events(2)
        flow.publish(there)
        answer = flow.publish_all([altered(there), new], prefer="reply")
        assert [result["status"] for result in answer.json()["results"]] == [422, 202]

    @pytest.mark.parametrize("prefer", ["replying", "return=minimal", 'x="reply"', "reply=no"])
    def test_another_preference_changes_nothing(self, flow: View, prefer: str) -> None:
        assert flow.publish(an_event(), prefer=prefer).json()["result"] == "accepted"

    def test_store_answers_without_a_body(self, flow: View) -> None:
        answer = flow.store(delivered(an_event()))
        assert (answer.status_code, answer.content) == (200, b"")

    @pytest.mark.parametrize("name", ["publish", "store", "dead_letters", "relay"])
    def test_a_function_tells_its_health_and_knows_one_path_and_one_method(self, flow: View, name: str) -> None:
        url = flow.stack.functions[name].url
        assert flow.http.get(f"{url}/healthz").status_code == 200
        assert flow.http.head(f"{url}/healthz").status_code == 200
        assert flow.http.get(f"{url}/livez").status_code == 200
        assert flow.http.post(f"{url}/other").status_code == 404
        assert flow.http.post(f"{url}/healthz").status_code == 404
        allowed = {"relay": "GET, POST", "publish": "POST, OPTIONS"}.get(name, "POST")
        for method in {"GET", "PUT", "DELETE"} - set(allowed.split(", ")):
            answer = flow.http.request(method, url)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
            assert answer.headers["content-type"] == "application/problem+json"

    def test_a_second_relay_answers_that_another_relay_is_running(self, flow: View) -> None:
        flow.database.locks.update_one(
            {"_id": "relay"}, [{"$set": {"expires_at": {"$add": ["$$NOW", 60_000]}}}], upsert=True
        )
        try:
            assert "busy" in flow.relay()
        finally:
            flow.database.locks.delete_one({"_id": "relay"})
