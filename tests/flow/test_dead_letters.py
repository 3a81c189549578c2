"""The dead-letter sink of the KafkaSource, and the redrive into the log, through all processes."""

import asyncio
import base64
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from dev.process.child import free_port, wait_until
from dev.stack.functions import FunctionProcess
from tests.conftest import Spawner
from tests.helpers import Raw, View, an_event, delivered, plain_record, settings_of
from twofold.kafka.sender import Sender
from twofold.mongo.client import open_database
from twofold.storage.dead_letters import DeadLetters
from twofold.storage.outbox import Outbox
from twofold.write.redrive import Redrive, RedriveResult

pytestmark = pytest.mark.guarantee("G4")

TROUBLE = {
    "ce-knativeerrorcode": "503",
    "ce-knativeerrordest": "http://store.local/",
    "ce-knativeerrordata": base64.b64encode(b'{"title":"unavailable"}').decode(),
}
"""The headers that KafkaSource adds to a dead letter: https://knative.dev/docs/eventing/event-delivery/"""


def undelivered(request: tuple[Raw, bytes]) -> tuple[Raw, bytes]:
    headers, body = request
    return [*headers, *((name.encode(), value.encode()) for name, value in TROUBLE.items())], body


def sink(flow: View) -> str:
    return flow.stack.functions["dead_letters"].url


def kept(flow: View, body: bytes) -> list[dict[str, Any]]:
    return list(flow.database.dead_letters.find({"body": body}))


@pytest.mark.guarantee("R11")
class TestSink:
    def test_the_sink_keeps_undelivered_requests(self, flow: View) -> None:
        """The bytes stay as before the source added its reason. The reason is kept too."""
        body = b"\x00\xff not ours " + uuid4().bytes
        headers, _ = request = plain_record(body, partition=2, offset=5)
        assert flow.store(undelivered(request), sink(flow)).status_code == 200
        (dead_letter,) = kept(flow, body)
        assert (dead_letter["reason"], dead_letter["state"], dead_letter["event_id"]) == ("undelivered", "dead", None)
        assert dead_letter["kafka"] == {"partition": 2, "offset": 5}
        assert dead_letter["detail"] == 'http://store.local/ answered 503: {"title":"unavailable"}'
        names = {header["name"]: header["value"] for header in dead_letter["headers"]}
        assert names == {name.decode(): value for name, value in headers}

    def test_a_redelivery_is_the_same_dead_letter(self, flow: View) -> None:
        body = uuid4().bytes
        for _ in range(3):
            assert flow.store(undelivered(plain_record(body)), sink(flow)).status_code == 200
        (dead_letter,) = kept(flow, body)
        assert dead_letter["times"] == 3

    def test_a_valid_event_is_recognised(self, flow: View) -> None:
        """The extensions of the source belong neither to the event nor to its digest."""
        event = an_event()
        assert flow.store(undelivered(delivered(event)), sink(flow)).status_code == 200
        (dead_letter,) = flow.dead_letters(event)
        assert (dead_letter["event_id"], dead_letter["digest"]) == (event.event_id, event.digest)

    def test_a_delivery_without_the_sources_reason_is_kept(self, flow: View) -> None:
        body = uuid4().bytes
        headers, _ = plain_record(body)
        broken = [*headers, (b"ce-knativeerrordata", b"no base64!")]
        assert flow.store((broken, body), sink(flow)).status_code == 200
        assert len(kept(flow, body)) == 1

    def test_without_mongodb_the_sink_answers_503(self, spawn: Spawner) -> None:
        """The source then keeps the delivery and tries again."""
        uri = f"mongodb://127.0.0.1:{free_port()}"
        unreachable = spawn("dead_letters", probe="/livez", MONGODB_URI=uri, MONGODB_TIMEOUT_S="0.5")
        answer = posted(unreachable, undelivered(plain_record(b"poison")))
        assert answer == 503

    def test_the_sink_has_only_the_rights_it_needs(self, flow: View) -> None:
        users = flow.database.command("usersInfo", "dead_letters", showPrivileges=True)["users"]
        granted = {grant["resource"].get("collection") for grant in users[0]["inheritedPrivileges"]}
        assert granted == {"dead_letters"}


@pytest.mark.guarantee("R32")
class TestConfidential:
    """Dead letters may hold any data, so only operators see them."""

    def test_no_function_shows_or_changes_a_dead_letter_over_http(self, flow: View) -> None:
        """The sink only accepts deliveries. An operator works through MongoDB, as a user with a name."""
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
            answer = flow.http.request(method, sink(flow))
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    def test_the_database_hides_dead_letters_from_readers(self, flow: View) -> None:
        uri = flow.stack.function_environment("publish")["MONGODB_URI"]
        with MongoClient[dict[str, Any]](uri) as client, pytest.raises(OperationFailure) as refused:
            client[flow.stack.database]["dead_letters"].find_one()
        assert refused.value.code == 13


def posted(function: FunctionProcess, request: tuple[Raw, bytes]) -> int:
    headers, body = request
    return httpx.post(function.url, headers=headers, content=body, timeout=30).status_code


@pytest.mark.guarantee("R12")
class TestRedriven:
    def test_a_redriven_event_goes_through_kafka_into_the_log(self, flow: View) -> None:
        """The way is Kafka, KafkaSource and `store`. The event is not in `events`, so the relay cannot send it."""
        event = an_event()
        assert flow.store(undelivered(delivered(event, 1, 2)), sink(flow)).status_code == 200
        (dead_letter,) = flow.dead_letters(event)
        assert asyncio.run(redriven(flow, dead_letter["_id"])) == RedriveResult(sent=1)
        assert flow.arrive([event])
        assert wait_until(lambda: flow.dead_letters(event)[0]["state"] == "stored", within=10)
        (dead_letter,) = flow.dead_letters(event)
        assert [line["what"] for line in dead_letter["history"]] == ["redriven", "stored"]
        logged = flow.document("event_store", event)
        assert logged is not None
        assert "redriveof" not in str(logged), "the redrive is no part of the event"

    def test_redriven_poison_is_the_same_dead_letter(self, flow: View) -> None:
        body = uuid4().bytes
        assert flow.store(plain_record(body, 71, 1)).status_code == 200
        (dead_letter,) = kept(flow, body)
        assert asyncio.run(redriven(flow, dead_letter["_id"])) == RedriveResult(sent=1)
        assert wait_until(lambda: kept(flow, body)[0]["state"] == "dead", within=40)
        (again,) = kept(flow, body)
        assert (again["_id"], again["times"]) == (dead_letter["_id"], 2)
        assert [line["what"] for line in again["history"]] == ["redriven", "failed again"]


async def redriven(flow: View, dead_letter_id: Any) -> RedriveResult:
    settings = settings_of(flow.stack)
    sender = Sender(settings)
    async with open_database(settings, "tests") as database:
        done = await Redrive(DeadLetters(database), Outbox(database), sender).redrive([dead_letter_id], "Ada")
    await asyncio.to_thread(sender.close, 0.0)
    return done
