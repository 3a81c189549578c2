"""`pod_events` over HTTP in the running stack: deliveries of an ApiServerSource, and the events in both collections."""

import asyncio
import copy
import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from dev.process.child import wait_until
from tests.conftest import Spawner
from tests.helpers import ARRIVES_WITHIN_S, View, callers, failing, settings_of
from tests.pods import SourceRequest, first_observed, names, new_life
from twofold.mongo.client import Document, open_database

pytestmark = pytest.mark.guarantee("G6")


def send(flow: View, sent: SourceRequest, url: str = "") -> httpx.Response:
    headers, body = sent.request()
    return flow.http.post(url or flow.stack.pod_events_url, headers=headers, content=body)


def documents(flow: View, collection: str, uid: str) -> list[Document]:
    return list(flow.database[collection].find({"payload.pod_uid": uid}))


def expected(states: Iterable[SourceRequest]) -> dict[Any, bytes]:
    return {event_id: event.digest for event_id, event in first_observed(states).items()}


def held(flow: View, collection: str, uid: str) -> dict[Any, bytes]:
    return {document["_id"]: document["digest"] for document in documents(flow, collection, uid)}


def arrived(flow: View, uid: str, facts: dict[Any, bytes]) -> bool:
    return wait_until(lambda: held(flow, "event_store", uid) == facts, within=ARRIVES_WITHIN_S, every=0.1)


def dead_letters(flow: View, ce_id: str) -> list[Document]:
    return list(flow.database.dead_letters.find({"headers.value": ce_id.encode()}))


class TestLives:
    @pytest.mark.guarantee("G6", "R13", "R14", "R15", "R16", "R17")
    def test_both_collections_have_the_first_observations_of_every_life(self, flow: View) -> None:
        lives = [new_life(name) for name in names()]
        for states in lives:
            assert [send(flow, state).status_code for state in states] == [200] * len(states)
        for states in lives:
            facts = expected(states)
            assert held(flow, "events", states[0].uid) == facts
            assert arrived(flow, states[0].uid, facts)

    @pytest.mark.guarantee("R20")
    def test_a_new_process_publishes_no_known_fact(self, flow: View, spawn: Spawner) -> None:
        states = new_life("completed_job")
        for state in states:
            send(flow, state)
        before = {document["_id"]: document["seq"] for document in documents(flow, "events", states[0].uid)}
        another = spawn("pod_events")
        for state in states:
            assert send(flow, state, another.url).status_code == 200
        after = {document["_id"]: document["seq"] for document in documents(flow, "events", states[0].uid)}
        assert after == before

    @pytest.mark.guarantee("R20")
    def test_facts_of_a_failed_delivery_are_published_by_the_next(self, flow: View, spawn: Spawner) -> None:
        """Without MongoDB the answer is 503."""
        states = new_life("exit_1")
        without_mongodb = spawn(
            "pod_events", probe="/livez", MONGODB_URI="mongodb://127.0.0.1:1", MONGODB_TIMEOUT_S="0.5"
        )
        answer = send(flow, states[-1], without_mongodb.url)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert send(flow, states[-1]).status_code == 200
        assert held(flow, "events", states[0].uid) == expected(states[-1:])

    @pytest.mark.guarantee("G6", "G5")
    def test_a_pod_older_than_the_retention_is_not_published_again(self, flow: View) -> None:
        """After 30 days only the log has its events. Its state in `pod_state` may be lost too."""
        states = new_life("exit_1")
        facts = expected(states[-1:])
        send(flow, states[-1])
        assert arrived(flow, states[0].uid, facts)
        flow.database.events.delete_many({"payload.pod_uid": states[0].uid})
        flow.database.pod_state.delete_one({"_id": states[0].uid})
        assert send(flow, states[-1]).status_code == 200
        assert held(flow, "events", states[0].uid) == {}
        assert held(flow, "event_store", states[0].uid) == facts

    def test_the_first_observation_wins(self, flow: View) -> None:
        """A later state with another label and owner is a success, and changes nothing."""
        states = new_life("labels_changed")
        assert {send(flow, state).status_code for state in states} == {200}
        created = flow.database.events.find_one({"payload.pod_uid": states[0].uid, "event_type": "pod.created"})
        assert created["aggregate_id"] == "execution-28"
        assert not flow.database.dead_letters.count_documents({"event_id": created["_id"]})

    @pytest.mark.parametrize("terminating", [False, True], ids=["running", "terminating"])
    def test_a_pod_that_leaves_the_selector_is_not_deleted(self, flow: View, terminating: bool) -> None:
        """The source sends a deletion with the last state. The pod's removal then gives `pod.deleted`."""
        states = new_life("deleted_while_running")
        until = next(index for index, sent in enumerate(states) if "deletionTimestamp" in sent.pod["metadata"])
        observed = states[: until + terminating]
        left = copy.deepcopy(observed[-1])
        left.headers["ce-type"] = "dev.knative.apiserver.resource.delete"
        assert {send(flow, state).status_code for state in [*observed, left]} == {200}
        assert held(flow, "events", states[0].uid) == expected(observed)
        assert {send(flow, state).status_code for state in states[-2:]} == {200}
        types = {document["event_type"] for document in documents(flow, "events", states[0].uid)}
        assert types >= {"pod.terminating", "pod.deleted"}

    @pytest.mark.guarantee("R21")
    def test_the_id_of_the_work_finds_the_pod_events(self, flow: View) -> None:
        states = new_life("completed_job")
        work = f"execution-{states[0].uid}"
        for state in states:
            state.pod["metadata"]["labels"]["twofold.dev/aggregate-id"] = work
            send(flow, state)
        found = flow.database.events.find({"aggregate_id": work})
        assert {document["_id"] for document in found} == expected(states).keys()


class TestAnswers:
    def test_an_ignored_pod_is_a_success_without_events(self, flow: View, spawn: Spawner) -> None:
        by_label, by_annotation, by_namespace = (copy.deepcopy(new_life("exit_1")[-1]) for _ in range(3))
        by_label.pod["metadata"]["labels"]["twofold.dev/ignore"] = "true"
        by_annotation.pod["metadata"]["annotations"] = {"twofold.dev/ignore": "true"}
        particular = spawn("pod_events", PODS_IGNORED_NAMESPACES="kube-system work")
        assert send(flow, by_label).status_code == 200
        assert send(flow, by_annotation).status_code == 200
        assert send(flow, by_namespace, particular.url).status_code == 200
        for sent in (by_label, by_annotation, by_namespace):
            assert documents(flow, "events", sent.uid) == []

    def test_the_mode_reference_is_an_error_that_names_the_fix(self, flow: View) -> None:
        headers, _ = new_life("exit_1")[0].request()
        body = json.dumps({"kind": "Pod", "namespace": "work", "name": "x", "apiVersion": "v1"}).encode()
        headers["ce-type"] = "dev.knative.apiserver.ref.add"
        answer = flow.http.post(flow.stack.pod_events_url, headers=headers, content=body)
        assert answer.status_code == 422
        assert "set `mode: Resource`" in answer.json()["detail"]
        assert dead_letters(flow, headers["ce-id"]) == []

    @pytest.mark.guarantee("G4")
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            b"{}",
            b'{"apiVersion": "v1", "kind": "Node"}',
            b'{"apiVersion": "v1", "kind": "Pod", "spec": {}}',
        ],
    )
    def test_a_body_that_is_no_pod_is_a_dead_letter_and_a_success(self, flow: View, body: bytes) -> None:
        headers, _ = new_life("exit_1")[0].request()
        answer = flow.http.post(flow.stack.pod_events_url, headers=headers, content=body)
        assert (answer.status_code, answer.content) == (200, b"")
        (dead_letter,) = dead_letters(flow, headers["ce-id"])
        assert (dead_letter["body"], dead_letter["sink"], dead_letter["state"]) == (body, "pod_events", "dead")

    @pytest.mark.guarantee("G4")
    def test_an_event_of_another_type_is_a_dead_letter(self, flow: View) -> None:
        headers, body = new_life("exit_1")[0].request()
        headers["ce-type"] = "order.created"
        assert flow.http.post(flow.stack.pod_events_url, headers=headers, content=body).status_code == 200
        (dead_letter,) = dead_letters(flow, headers["ce-id"])
        assert dead_letter["detail"] == "is no event type of an ApiServerSource"

    @pytest.mark.guarantee("R19")
    async def test_a_waiting_delivery_does_not_delay_other_pods(self, flow: View, spawn: Spawner) -> None:
        """MongoDB delays one insert. Deliveries of other pods are answered meanwhile."""
        slow, *others = (new_life("exit_1")[-1] for _ in range(6))
        alone = spawn("pod_events")
        async with callers(8) as sending, open_database(settings_of(flow.stack), "tests") as database:
            await sending.post(alone.url, new_life("no_status")[0].request())  # opens the connections
            block = {"blockConnection": True, "blockTimeMS": 3000}
            async with failing(database, "pod_events", **block):
                waiting = asyncio.create_task(sending.post(alone.url, slow.request()))
                await asyncio.sleep(0.5)
                answers = await sending.post_all(alone.url, [other.request() for other in others])
                assert [answer.status for answer in answers] == [200] * 5
                assert not waiting.done()
                assert (await waiting).status == 200

    def test_only_post_is_allowed(self, flow: View) -> None:
        assert flow.http.get(flow.stack.pod_events_url).status_code == 405


@pytest.mark.guarantee("G3")
def test_the_database_user_may_not_change_events_or_write_the_log(flow: View) -> None:
    with MongoClient[Document](flow.stack.function_environment("pod_events")["MONGODB_URI"]) as client:
        database = client[flow.stack.database]
        for change in (
            lambda: database.events.update_one({}, {"$set": {"payload": {}}}),
            lambda: database.event_store.insert_one({"_id": 1}),
            lambda: database.pod_state.delete_one({"_id": "x"}),
        ):
            with pytest.raises(Exception, match="not authorized"):
                change()
