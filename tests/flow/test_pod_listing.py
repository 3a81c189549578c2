"""Pings to `pod_events`: the listing finds missed facts, and makes no false deletion."""

import asyncio
import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from dev.ping import ping_headers
from dev.process.child import free_port, wait_until
from dev.stack.functions import FunctionProcess
from tests.api_server import ApiServer, api_server
from tests.conftest import Spawner
from tests.flow.test_pod_events import expected, held, send
from tests.helpers import View, callers
from tests.pods import SourceRequest, life, new_life
from twofold.mongo.client import Document

pytestmark = pytest.mark.guarantee("G6")


PING_HEADERS = ping_headers("pod-events", datetime.now(UTC))


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as served:
        yield served


@pytest.fixture
def lister(spawn: Spawner, api: ApiServer) -> FunctionProcess:
    """Start a process of `pod_events` with a cluster of its own."""
    return spawn("pod_events", KUBERNETES_API_SERVER=api.url, PODS_CLUSTER=f"test-{uuid4()}", PODS_PAGE="50")


def ping(flow: View, function: FunctionProcess) -> httpx.Response:
    return flow.http.post(function.url, headers=PING_HEADERS, content=b"{}")


def listed(flow: View, function: FunctionProcess) -> dict[str, Any]:
    answer = ping(flow, function)
    assert answer.status_code == 200, answer.text
    run: dict[str, Any] = answer.json()
    return run


def events_of(flow: View, sent: SourceRequest) -> list[Document]:
    return list(flow.database.events.find({"payload.pod_uid": sent.uid}))


def types_of(flow: View, sent: SourceRequest) -> set[str]:
    return {document["event_type"] for document in events_of(flow, sent)}


class TestMissedFacts:
    @pytest.mark.guarantee("G6", "R13")
    def test_pods_older_than_the_source_are_published_once(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        """An ApiServerSource sends nothing for its first list."""
        pods = [new_life(name)[-1] for name in ("exit_1", "crash_loop", "static_pod")]
        for sent in pods:
            api.put(sent.pod)
        run = listed(flow, lister)
        assert (run["listed"], run["published"]) == (3, sum(len(sent.events()) for sent in pods))
        for sent in pods:
            assert held(flow, "events", sent.uid).keys() == expected([sent]).keys()
        assert listed(flow, lister)["published"] == 0

    def test_all_pages_are_requested_with_the_size_of_the_setting(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        for number in range(120):
            sent = new_life("no_status")[0]
            sent.pod["metadata"]["name"] = f"pod-{number:03}"
            api.put(sent.pod)
        run = listed(flow, lister)
        assert (run["listed"], run["published"]) == (120, 120)
        assert api.asked == [
            "/api/v1/pods?limit=50",
            "/api/v1/pods?continue=50&limit=50",
            "/api/v1/pods?continue=100&limit=50",
        ]

    @pytest.mark.slow
    def test_an_expired_token_is_replaced(self, flow: View, lister: FunctionProcess, api: ApiServer) -> None:
        for number in range(120):
            sent = new_life("no_status")[0]
            sent.pod["metadata"]["name"] = f"pod-{number:03}"
            api.put(sent.pod)
        api.expired = {"50", "100"}
        assert listed(flow, lister)["listed"] == 120

    @pytest.mark.slow
    def test_only_the_selected_pods_are_requested(self, flow: View, spawn: Spawner, api: ApiServer) -> None:
        selection = {"PODS_NAMESPACE": "work", "PODS_SELECTOR": "app=web,tier!=test"}
        listed(flow, spawn("pod_events", KUBERNETES_API_SERVER=api.url, PODS_CLUSTER=f"test-{uuid4()}", **selection))
        assert api.asked == ["/api/v1/namespaces/work/pods?labelSelector=app%3Dweb%2Ctier%21%3Dtest&limit=250"]

    @pytest.mark.slow
    def test_an_ignored_pod_is_skipped_and_an_unreadable_pod_is_a_dead_letter(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        ignored, unreadable, sound = new_life("exit_1")[-1], new_life("crash_loop")[-1], new_life("static_pod")[-1]
        ignored.pod["metadata"]["labels"]["twofold.dev/ignore"] = "true"
        unreadable.pod["status"]["startTime"] = f"never {unreadable.uid}"
        for sent in (ignored, unreadable, sound):
            api.put(sent.pod)
        run = listed(flow, lister)
        assert (run["listed"], run["ignored"], run["unreadable"]) == (3, 1, 1)
        assert run["published"] == len(sound.events())
        dead_letters = list(flow.database.dead_letters.find({"sink": "pod_events", "kafka.partition": None}))
        assert any(unreadable.uid.encode() in dead_letter["body"] for dead_letter in dead_letters)


class TestMissingPods:
    def test_a_missing_pod_is_deleted_after_its_absence_is_confirmed(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        sent = new_life("crash_loop")[-1]
        send(flow, sent, lister.url)
        run = listed(flow, lister)
        assert (run["gone"], run["published"]) == (1, 1)
        assert api.asked[-1] == "/api/v1/namespaces/work/pods/worker-7f6d-9kq4d"
        (deleted,) = [document for document in events_of(flow, sent) if document["event_type"] == "pod.deleted"]
        assert deleted["payload"]["observed"] == "reconciled"
        assert deleted["timestamp"] > max(document["timestamp"] for document in events_of(flow, sent)[:-1])
        assert listed(flow, lister)["gone"] == 0

    @pytest.mark.slow
    def test_a_new_pod_of_the_same_name_is_another_pod(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        before, after = (new_life("node_lost")[3] for _ in range(2))
        send(flow, before, lister.url)
        api.put(after.pod)
        assert listed(flow, lister)["gone"] == 1
        assert "pod.deleted" in types_of(flow, before)
        assert "pod.deleted" not in types_of(flow, after)

    @pytest.mark.slow
    def test_a_late_deletion_from_the_source_changes_nothing(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        states = new_life("deleted_while_running")
        for state in states[:-1]:
            send(flow, state, lister.url)
        assert listed(flow, lister)["gone"] == 1
        assert send(flow, states[-1], lister.url).status_code == 200
        found = {document["event_type"]: document["payload"] for document in events_of(flow, states[0])}
        assert found["pod.deleted"]["observed"] == "reconciled"
        assert held(flow, "events", states[0].uid).keys() == expected(states).keys()

    def test_a_pod_with_a_delivered_deletion_is_not_requested(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        for state in new_life("completed_job"):
            send(flow, state, lister.url)
        assert listed(flow, lister)["gone"] == 0
        assert api.asked == ["/api/v1/pods?limit=50"]


@pytest.mark.slow
class TestNoFalseDeletion:
    @pytest.fixture
    def sent(self, flow: View, lister: FunctionProcess) -> SourceRequest:
        state = new_life("crash_loop")[-1]
        send(flow, state, lister.url)
        return state

    def test_a_pod_missing_in_a_list_is_not_deleted(
        self, flow: View, lister: FunctionProcess, api: ApiServer, sent: SourceRequest
    ) -> None:
        """A stale list and a narrower selector look the same: the pod exists and is not listed."""
        api.put(sent.pod)
        api.hidden = {sent.pod["metadata"]["name"]}
        run = listed(flow, lister)
        assert (run["listed"], run["gone"], run["unlisted"]) == (0, 0, 1)
        assert "pod.deleted" not in types_of(flow, sent)

    @pytest.mark.guarantee("R18")
    def test_an_unlisted_pod_is_not_requested_again_at_once(
        self, flow: View, lister: FunctionProcess, api: ApiServer, sent: SourceRequest
    ) -> None:
        api.put(sent.pod)
        api.hidden = {sent.pod["metadata"]["name"]}
        assert [listed(flow, lister)["unlisted"] for _ in range(3)] == [1, 0, 0]

    def test_without_permission_to_list_nothing_is_deleted(
        self, flow: View, lister: FunctionProcess, api: ApiServer, sent: SourceRequest
    ) -> None:
        api.forbidden = {"list"}
        answer = ping(flow, lister)
        assert answer.status_code == 503
        assert "needs the verb list on pods" in answer.json()["detail"]
        assert "pod.deleted" not in types_of(flow, sent)

    def test_without_permission_to_get_nothing_is_deleted(
        self, flow: View, lister: FunctionProcess, api: ApiServer, sent: SourceRequest
    ) -> None:
        api.forbidden = {"get"}
        assert listed(flow, lister)["gone"] == 0
        assert "pod.deleted" not in types_of(flow, sent)

    @pytest.mark.parametrize("verb", ["list", "get"])
    def test_a_404_of_a_proxy_deletes_nothing(
        self, flow: View, lister: FunctionProcess, api: ApiServer, sent: SourceRequest, verb: str
    ) -> None:
        api.broken = {verb}
        assert ping(flow, lister).status_code == 503
        assert "pod.deleted" not in types_of(flow, sent)

    @pytest.mark.parametrize("status", [500, 0], ids=["error", "connection-closed"])
    def test_a_failed_get_deletes_nothing(
        self, flow: View, lister: FunctionProcess, api: ApiServer, sent: SourceRequest, status: int
    ) -> None:
        """The list succeeds without the pod."""
        api.failing = {"get": status}
        answer = ping(flow, lister)
        assert (answer.status_code, "get pods" in answer.json()["detail"]) == (503, True)
        assert "pod.deleted" not in types_of(flow, sent)

    def test_an_unavailable_api_server_deletes_nothing(
        self, flow: View, spawn: Spawner, lister: FunctionProcess, sent: SourceRequest
    ) -> None:
        cluster = lister.environment["PODS_CLUSTER"]
        nowhere = f"http://127.0.0.1:{free_port()}"
        unavailable = spawn("pod_events", KUBERNETES_API_SERVER=nowhere, PODS_CLUSTER=cluster)
        assert ping(flow, unavailable).status_code == 503
        assert "pod.deleted" not in types_of(flow, sent)

    def test_a_cluster_of_another_name_deletes_nothing(
        self, flow: View, spawn: Spawner, api: ApiServer, sent: SourceRequest
    ) -> None:
        other = spawn("pod_events", KUBERNETES_API_SERVER=api.url, PODS_CLUSTER=f"another-{uuid4()}")
        assert listed(flow, other)["gone"] == 0
        assert "pod.deleted" not in types_of(flow, sent)


@pytest.mark.slow
class TestErrors:
    def test_without_an_api_server_the_error_names_the_settings(self, flow: View) -> None:
        answer = flow.http.post(flow.stack.pod_events_url, headers=PING_HEADERS, content=b"{}")
        assert answer.status_code == 503
        assert "set KUBERNETES_API_SERVER or KUBECONFIG" in answer.json()["detail"]

    @pytest.mark.guarantee("R19")
    async def test_a_slow_list_delays_no_delivery_and_only_one_listing_runs(
        self, flow: View, lister: FunctionProcess, api: ApiServer
    ) -> None:
        """The blocking client runs in a thread."""
        api.delay_s = 15.0
        async with callers(8) as sending:
            request = (PING_HEADERS, b"{}")
            first = asyncio.create_task(sending.post(lister.url, request))
            assert await asyncio.to_thread(wait_until, lambda: bool(api.delayed), within=15.0)
            deliveries = await sending.post_all(lister.url, [new_life("exit_1")[-1].request() for _ in range(5)])
            second = await sending.post(lister.url, request)
            assert api.delayed, "the list ended before the answers"
            assert not first.done()
            assert [answer.status for answer in deliveries] == [200] * 5
            assert second.json() == {"busy": "another listing is running"}
            api.delay_s = 0.0
            assert (await first).status == 200

    def test_a_kubeconfig_names_the_api_server(
        self, flow: View, spawn: Spawner, api: ApiServer, tmp_path: Path
    ) -> None:
        config = tmp_path / "kubeconfig"
        config.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
            f"clusters: [{{name: here, cluster: {{server: '{api.url}'}}}}]\n"
            "users: [{name: me, user: {token: secret}}]\n"
            "contexts: [{name: here, context: {cluster: here, user: me}}]\n"
        )
        function = spawn("pod_events", KUBECONFIG=str(config), PODS_CLUSTER=f"test-{uuid4()}")
        assert listed(flow, function)["listed"] == 0


LIMIT_KB = 200 * 1024


@pytest.mark.slow
def test_5000_pods_are_listed_within_200_mib(flow: View, spawn: Spawner, api: ApiServer) -> None:
    """The listing holds one page in memory. The kernel measures the worker's peak (VmHWM)."""
    template = life("sidecar_after_main")[-1].pod
    for number in range(5000):
        pod = copy.deepcopy(template)
        pod["metadata"] |= {"name": f"pod-{number:04}", "uid": str(uuid4())}
        api.put(pod)
    function = spawn("pod_events", KUBERNETES_API_SERVER=api.url, PODS_CLUSTER=f"test-{uuid4()}")
    run = listed(flow, function)
    assert run["listed"] == 5000
    assert run["published"] == 5000 * len(life("sidecar_after_main")[-1].events())
    assert len(api.asked) == 20
    (worker,) = function.worker_pids
    peak = Path(f"/proc/{worker}/status").read_text().partition("VmHWM:")[2].split()[0]
    assert int(peak) < LIMIT_KB, peak
