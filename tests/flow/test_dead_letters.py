"""The dead-letter sink of the KafkaSource, and the way back into the log, through all processes."""

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
"""What KafkaSource adds to a dead letter: https://knative.dev/docs/eventing/event-delivery/"""


def given_up(request: tuple[Raw, bytes]) -> tuple[Raw, bytes]:
    headers, body = request
    return [*headers, *((name.encode(), value.encode()) for name, value in TROUBLE.items())], body


def sink(flow: View) -> str:
    return flow.stack.functions["dead_letters"].url


def kept(flow: View, body: bytes) -> list[dict[str, Any]]:
    return list(flow.database.dead_letters.find({"body": body}))


@pytest.mark.guarantee("R11")
class TestSink:
    def test_it_starts_and_keeps_what_a_source_gave_up_on(self, flow: View) -> None:
        """To the byte, as it was before the source said why; with its words as the letter's."""
        body = b"\x00\xff not ours " + uuid4().bytes
        headers, _ = request = plain_record(body, partition=2, offset=5)
        assert flow.store(given_up(request), sink(flow)).status_code == 200
        (letter,) = kept(flow, body)
        assert (letter["reason"], letter["state"], letter["event_id"]) == ("undelivered", "dead", None)
        assert letter["log"] == {"partition": 2, "offset": 5}
        assert letter["detail"] == 'http://store.local/ answered 503: {"title":"unavailable"}'
        names = {header["name"]: header["value"] for header in letter["headers"]}
        assert names == {name.decode(): value for name, value in headers}

    def test_a_redelivery_is_the_same_letter(self, flow: View) -> None:
        body = uuid4().bytes
        for _ in range(3):
            assert flow.store(given_up(plain_record(body)), sink(flow)).status_code == 200
        (letter,) = kept(flow, body)
        assert letter["times"] == 3

    def test_a_sound_event_is_known_as_what_it_is(self, flow: View) -> None:
        """The source's extensions are no part of it, nor of its digest."""
        event = an_event()
        assert flow.store(given_up(delivered(event)), sink(flow)).status_code == 200
        (letter,) = flow.letters(event)
        assert (letter["event_id"], letter["digest"]) == (event.event_id, event.digest)

    def test_without_the_sources_words_it_is_kept_all_the_same(self, flow: View) -> None:
        body = uuid4().bytes
        headers, _ = plain_record(body)
        broken = [*headers, (b"ce-knativeerrordata", b"no base64!")]
        assert flow.store((broken, body), sink(flow)).status_code == 200
        assert len(kept(flow, body)) == 1

    def test_without_mongodb_it_answers_503(self, spawn: Spawner) -> None:
        """Then the source keeps it, and tries again."""
        uri = f"mongodb://127.0.0.1:{free_port()}"
        away = spawn("dead_letters", probe="/livez", MONGODB_URI=uri, MONGODB_TIMEOUT_S="0.5")
        answer = posted(away, given_up(plain_record(b"poison")))
        assert answer == 503

    def test_it_has_no_rights_but_those_it_needs(self, flow: View) -> None:
        users = flow.database.command("usersInfo", "dead_letters", showPrivileges=True)["users"]
        granted = {grant["resource"].get("collection") for grant in users[0]["inheritedPrivileges"]}
        assert granted == {"dead_letters"}


@pytest.mark.guarantee("R32")
class TestClosed:
    """Letters may hold anything: only who works on them sees them."""

    def test_no_function_shows_or_changes_a_letter_over_http(self, flow: View) -> None:
        """The sink takes, and that is all; what an operator does goes through MongoDB, as a user with a name."""
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
            answer = flow.http.request(method, sink(flow))
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    def test_the_database_hides_them_from_who_has_no_need_of_them(self, flow: View) -> None:
        uri = flow.stack.function_environment("publish")["MONGODB_URI"]
        with MongoClient[dict[str, Any]](uri) as client, pytest.raises(OperationFailure) as refused:
            client[flow.stack.database]["dead_letters"].find_one()
        assert refused.value.code == 13


def posted(function: FunctionProcess, request: tuple[Raw, bytes]) -> int:
    headers, body = request
    return httpx.post(function.url, headers=headers, content=body, timeout=30).status_code


@pytest.mark.guarantee("R12")
class TestRedriven:
    def test_it_goes_to_the_right_topic_in_the_right_form_and_into_the_log(self, flow: View) -> None:
        """Through Kafka, KafkaSource and `store`; it isn't even in `events`, so nothing else could bring it."""
        event = an_event()
        assert flow.store(given_up(delivered(event, 1, 2)), sink(flow)).status_code == 200
        (letter,) = flow.letters(event)
        assert asyncio.run(redriven(flow, letter["_id"])) == RedriveResult(sent=1)
        assert flow.arrive([event])
        assert wait_until(lambda: flow.letters(event)[0]["state"] == "stored", within=10)
        (letter,) = flow.letters(event)
        assert [line["what"] for line in letter["history"]] == ["redriven", "stored"]
        logged = flow.document("event_store", event)
        assert logged is not None
        assert "redriveof" not in str(logged), "how it came is no part of it"

    def test_poison_comes_back_as_the_same_letter(self, flow: View) -> None:
        body = uuid4().bytes
        assert flow.store(plain_record(body, 71, 1)).status_code == 200
        (letter,) = kept(flow, body)
        assert asyncio.run(redriven(flow, letter["_id"])) == RedriveResult(sent=1)
        assert wait_until(lambda: kept(flow, body)[0]["state"] == "dead", within=40)
        (again,) = kept(flow, body)
        assert (again["_id"], again["times"]) == (letter["_id"], 2)
        assert [line["what"] for line in again["history"]] == ["redriven", "failed again"]


async def redriven(flow: View, dead_letter_id: Any) -> RedriveResult:
    settings = settings_of(flow.stack)
    sender = Sender(settings)
    async with open_database(settings, "tests") as database:
        done = await Redrive(DeadLetters(database), Outbox(database), sender).redrive([dead_letter_id], "Ada")
    await asyncio.to_thread(sender.close, 0.0)
    return done
