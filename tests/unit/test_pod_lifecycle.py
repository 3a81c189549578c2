"""`lifecycle`: from one state of a pod to the events of its facts."""

import copy
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.paths import ROOT
from functions.pod_events.facts import ALWAYS_MAY_DIFFER, MAY_DIFFER
from functions.pod_events.identity import Identity
from functions.pod_events.lifecycle import lifecycle, reconciled_deletion
from functions.pod_events.pod import Pod
from functions.pod_events.times import created_at
from tests.pods import IDENTITY, SourceRequest, differing, first_observed, life, names
from twofold.errors import Invalid
from twofold.event.model import Event
from twofold.event.reserved import is_reserved

pytestmark = pytest.mark.guarantee("G6")

TIMELINES = {
    "completed_job": """
        08:00:00 created
        08:00:01 scheduled
        08:00:01 initialized
        08:00:04 running
        08:00:34 container_terminated main main 0 completed 0
        08:00:34 succeeded
        09:00:00 terminating 0
        09:00:00 deleted watched
    """,
    "config_error": """
        08:05:30 created
        08:05:30 scheduled
        08:05:30 initialized
        08:05:30 container_waiting main main 0 config_error CreateContainerConfigError
        08:06:12 running
    """,
    "crash_loop": """
        08:04:00 created
        08:04:00 scheduled
        08:04:00 initialized
        08:04:02 running
        08:04:03 container_terminated main main 0 error_exit 2
        08:04:06 container_terminated main main 1 error_exit 2
        08:04:06 container_waiting main main 1 crash_loop CrashLoopBackOff
        08:04:18 container_terminated main main 2 error_exit 2
        08:04:18 container_waiting main main 2 crash_loop CrashLoopBackOff
    """,
    "deadline_exceeded": """
        08:14:00 created
        08:14:00 scheduled
        08:14:00 initialized
        08:14:02 running
        08:15:31 container_terminated main main 0 signal 137 9
        08:15:31 failed deadline_exceeded
    """,
    "deleted_while_running": """
        08:32:00 created
        08:32:00 scheduled
        08:32:00 initialized
        08:32:03 running
        08:50:00 terminating 30
        08:50:02 container_terminated main main 0 completed 0
        08:50:03 deleted watched
    """,
    "ephemeral_container": """
        08:41:00 created
        08:41:00 scheduled
        08:41:00 initialized
        08:41:02 running
        08:47:12 container_terminated debugger-4xk ephemeral 0 signal 130 2
    """,
    "evicted_without_statuses": """
        08:12:00 created
        08:12:00 scheduled
        08:12:00 initialized
        08:12:03 running
        09:40:21 failed evicted
    """,
    "exit_1": """
        08:01:00 created
        08:01:00 scheduled
        08:01:00 initialized
        08:01:02 running
        08:01:09 container_terminated main main 0 error_exit 1
        08:01:09 failed main error_exit 1
    """,
    "grace_period_shortened": """
        08:33:00 created
        08:33:00 scheduled
        08:33:00 initialized
        08:33:03 running
        08:51:00 terminating 600
        08:52:31 container_terminated main main 0 signal 137 9
        08:52:31 failed main signal 137 9
        08:52:32 deleted watched
    """,
    "image_pull_failure": """
        08:05:00 created
        08:05:00 scheduled
        08:05:00 initialized
        08:05:00 container_waiting main main 0 image_pull ErrImagePull
        08:05:00 container_waiting main main 0 image_pull ImagePullBackOff
    """,
    "init_failing": """
        08:27:00 created
        08:27:00 scheduled
        08:27:05 container_terminated fetch init 0 error_exit 3
        08:27:05 failed fetch error_exit 3
    """,
    "killed_by_signal": """
        08:01:30 created
        08:01:30 scheduled
        08:01:30 initialized
        08:01:32 running
        08:01:39 container_terminated main main 0 signal 137 9
        08:01:39 failed main signal 137 9
    """,
    "knative_revision": """
        08:39:00 created
        08:39:00 scheduled
        08:39:00 initialized
        08:39:02 running
    """,
    "labels_changed": """
        08:37:00 created
        08:37:00 scheduled
        08:37:00 initialized
        08:37:03 running
        08:37:20 container_terminated main main 0 completed 0
        08:37:20 succeeded
    """,
    "lost_container": """
        08:48:00 created
        08:48:00 scheduled
        08:48:00 initialized
        08:48:02 running
        09:02:10 container_terminated main main 0 unknown 137
    """,
    "lost_then_failed": """
        08:49:00 created
        08:49:00 scheduled
        08:49:00 initialized
        08:49:02 running
        08:49:30 container_terminated main main 0 unknown 137
        08:49:30 failed main unknown 137
    """,
    "no_status": """
        08:38:00 created
    """,
    "node_lost": """
        08:16:00 created
        08:16:00 scheduled
        08:16:02 container_terminated fetch init 0 completed 0
        08:16:02 initialized
        08:16:04 running
        08:35:45 terminating 30
        08:36:20 failed node_lost
        08:36:20 deleted watched
    """,
    "oom_killed": """
        08:02:00 created
        08:02:00 scheduled
        08:02:00 initialized
        08:02:02 running
        08:02:41 container_terminated main main 0 oom_killed 137 9
        08:02:41 failed main oom_killed 137 9
    """,
    "oom_then_restarted": """
        08:03:00 created
        08:03:00 scheduled
        08:03:00 initialized
        08:03:02 running
        08:13:40 container_terminated main main 0 oom_killed 137 9
    """,
    "preempted": """
        08:18:00 created
        08:18:00 scheduled
        08:18:00 initialized
        08:18:03 running
        08:25:10 terminating 30
        08:25:11 container_terminated main main 0 signal 143 15
        08:25:11 failed preempted
        08:25:12 deleted watched
    """,
    "refused_by_the_kubelet": """
        08:40:00 created
        08:40:00 scheduled
        08:40:01 failed admission
    """,
    "sidecar_after_main": """
        08:29:00 created
        08:29:00 scheduled
        08:29:04 container_terminated fetch init 0 completed 0
        08:29:06 initialized
        08:29:07 running
        08:29:50 container_terminated main main 0 completed 0
        08:29:53 container_terminated proxy sidecar 0 signal 143 15
        08:29:53 succeeded
    """,
    "static_pod": """
        08:33:58 created
        08:33:58 scheduled
        08:33:59 initialized
        08:34:01 running
    """,
    "unschedulable_then_scheduled": """
        08:07:00 created
        08:07:00 unschedulable
        08:11:25 scheduled
        08:11:25 initialized
        08:11:30 running
    """,
}
"""The facts of each life, from all its states in order. A line has the time (UTC) on 1 July 2026, the fact, and the
values of `SHOWN` in the payload."""

ONLY_EARLIER = {
    "config_error": """
        08:05:30 container_waiting main main 0 config_error CreateContainerConfigError
    """,
    "crash_loop": """
        08:04:03 container_terminated main main 0 error_exit 2
        08:04:06 container_terminated main main 1 error_exit 2
        08:04:06 container_waiting main main 1 crash_loop CrashLoopBackOff
    """,
    "evicted_without_statuses": """
        08:12:00 initialized
        08:12:03 running
    """,
    "image_pull_failure": """
        08:05:00 container_waiting main main 0 image_pull ErrImagePull
    """,
    "lost_then_failed": """
        08:49:02 running
    """,
    "unschedulable_then_scheduled": """
        08:07:00 unschedulable
    """,
}
"""The facts of each life that its last state no longer shows."""

SHOWN = ("container", "container_kind", "restart", "cause", "exit_code", "signal", "grace_period_seconds", "observed")


def timeline(events: Iterable[Event]) -> list[str]:
    return [_line(event) for event in sorted(events, key=lambda event: event.timestamp)]


def _line(event: Event) -> str:
    values = [str(event.payload[name]) for name in SHOWN if name in event.payload]
    if event.event_type == "pod.container_waiting":
        values.append(event.payload["reason"])
    assert event.time.startswith("2026-07-01T")
    return " ".join([event.time[11:19], event.event_type.removeprefix("pod."), *values])


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def event_of(events: Iterable[Event], type_: str) -> Event:
    (event,) = [event for event in events if event.event_type == type_]
    return event


class TestTimelines:
    def test_every_life_has_its_timeline(self) -> None:
        assert set(TIMELINES) == set(names())

    @pytest.mark.guarantee("G6", "R13", "R14", "R15", "R16", "R17")
    @pytest.mark.parametrize("name", sorted(TIMELINES))
    def test_a_life_gives_its_timeline(self, name: str) -> None:
        assert timeline(first_observed(life(name)).values()) == lines_of(TIMELINES[name])

    @pytest.mark.guarantee("R13")
    @pytest.mark.parametrize("name", sorted(TIMELINES))
    def test_the_last_state_shows_all_facts_except_the_listed_ones(self, name: str) -> None:
        states = life(name)
        shown = {event.event_id for event in states[-1].events()}
        hidden = [event for event_id, event in first_observed(states).items() if event_id not in shown]
        assert timeline(hidden) == lines_of(ONLY_EARLIER.get(name, ""))

    @pytest.mark.guarantee("R13")
    def test_one_state_at_the_end_gives_all_facts_of_a_life(self) -> None:
        """A single state gives `pod.scheduled`, `pod.running` and the container's end."""
        last = [sent for sent in life("completed_job") if not sent.deleted][-1]
        assert timeline(last.events()) == lines_of(TIMELINES["completed_job"])[:-1]

    @pytest.mark.guarantee("R14")
    def test_a_failing_image_pull_is_a_fact_of_a_pending_pod(self) -> None:
        last = life("image_pull_failure")[-1]
        assert last.pod["status"]["phase"] == "Pending"
        waiting = event_of(last.events(), "pod.container_waiting")
        assert waiting.payload["message"] == 'Back-off pulling image "registry.example/work/runner:no-such"'

    @pytest.mark.guarantee("R15")
    def test_out_of_memory_and_a_signal_differ_by_cause_with_exit_code_137(self) -> None:
        failed = {name: event_of(life(name)[-1].events(), "pod.failed") for name in ("oom_killed", "killed_by_signal")}
        assert [failed[name].payload["cause"] for name in failed] == ["oom_killed", "signal"]
        assert {event.payload["exit_code"] for event in failed.values()} == {137}

    @pytest.mark.guarantee("R16")
    def test_an_evicted_pod_needs_no_container_statuses(self) -> None:
        last = life("evicted_without_statuses")[-1]
        assert "containerStatuses" not in last.pod["status"]
        failed = event_of(last.events(), "pod.failed")
        assert failed.payload["cause"] == "evicted"
        assert failed.payload["message"].startswith("The node was low on resource: memory.")

    @pytest.mark.guarantee("R17")
    def test_an_exceeded_deadline_is_the_cause_although_a_signal_ended_the_container(self) -> None:
        failed = event_of(life("deadline_exceeded")[-1].events(), "pod.failed")
        assert failed.payload["cause"] == "deadline_exceeded"


STARTS = ["pod.created", "pod.scheduled", "pod.initialized", "pod.running"]
_TIME = re.compile(r"2026-07-01T[0-9:.]+Z")


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("name", names())
def test_the_facts_of_one_second_are_in_the_order_of_the_pods_life(name: str) -> None:
    """Kubernetes' times are whole seconds. Here a whole life has one second."""
    text = json.dumps([sent.pod for sent in life(name)])
    for pod, sent in zip(json.loads(_TIME.sub("2026-07-01T08:00:00Z", text)), life(name), strict=True):
        types = [event.event_type for event in lifecycle(Pod.of(pod), IDENTITY, deleted=sent.deleted)]
        assert [type_ for type_ in types if type_ in STARTS] == [type_ for type_ in STARTS if type_ in types]
        last = ("pod.succeeded", "pod.failed", "pod.terminating", "pod.deleted")
        assert [type_ for type_ in types if type_ in last] == [type_ for type_ in last if type_ in types]
        assert types == sorted(types, key=lambda type_: (type_ != "pod.created", type_ in last))


class TestIds:
    def test_the_same_fact_has_the_same_id_from_every_state(self) -> None:
        """Kubernetes moves the end of a run from `state` to `lastState`. It stays one fact."""
        ends = [
            event
            for sent in life("crash_loop")
            for event in sent.events()
            if event.event_type == "pod.container_terminated"
        ]
        assert len(ends) > 3
        assert len({event.event_id for event in ends}) == 3

    def test_pods_of_the_same_name_share_no_fact(self) -> None:
        first = life("completed_job")[-1]
        second = copy.deepcopy(first.pod)
        second["metadata"]["uid"] = "5f2c6a3e-58a0-4a44-8b52-7a3c2f7f9a10"
        ids = {event.event_id for event in first.events()}
        assert not ids & {event.event_id for event in SourceRequest(first.headers, second).events()}

    def test_ids_never_change(self) -> None:
        """With another id, every known fact would be published again."""
        created = event_of(life("completed_job")[0].events(), "pod.created")
        assert created.id == "68c7caff-dcce-47b8-abaf-cd5a701a6d7c/created"
        assert created.event_id == UUID("a5cc1063-20e3-801c-942e-ce551d286906")

    @pytest.mark.parametrize("seen", ["2026-07-01T08:34:11Z", "soon", ""])
    def test_a_static_pod_without_an_earlier_time_has_its_creation_time(self, seen: str) -> None:
        (first, *_) = life("static_pod")
        pod = copy.deepcopy(first.pod)
        pod["metadata"]["annotations"]["kubernetes.io/config.seen"] = seen
        assert created_at(Pod.of(pod)) == datetime(2026, 7, 1, 8, 34, 10, tzinfo=UTC)

    def test_types_and_source_are_reserved(self) -> None:
        events = [event for name in names() for sent in life(name) for event in sent.events()]
        assert all(is_reserved(event.metadata.service_name, event.event_type) for event in events)

    def test_an_end_without_a_container_id_is_identified_by_its_restart(self) -> None:
        lost, back = life("lost_container")[-2:]
        first, second = (event_of(sent.events(), "pod.container_terminated") for sent in (lost, back))
        assert first.event_id == second.event_id
        assert first.id.endswith("/container_terminated/main/0")

    def test_a_lost_container_ends_once(self) -> None:
        """The kubelet reports the end when it cannot find the container, and again when the pod fails."""
        ends = [
            event
            for sent in life("lost_then_failed")[-2:]
            for event in sent.events()
            if event.event_type == "pod.container_terminated"
        ]
        assert [event.payload["restart"] for event in ends] == [0, 0]
        assert len({event.event_id for event in ends}) == 1

    def test_after_a_lost_container_the_next_run_counts_before_its_start(self) -> None:
        """The next run waits for its image."""
        pod = copy.deepcopy(life("lost_container")[-2].pod)
        pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ErrImagePull"}}
        end = event_of(lifecycle(Pod.of(pod), IDENTITY), "pod.container_terminated")
        assert end.payload["restart"] == 0

    def test_no_state_gives_a_fact_twice(self) -> None:
        for sent in (sent for name in names() for sent in life(name)):
            ids = [event.event_id for event in sent.events()]
            assert len(ids) == len(set(ids))


class TestObservations:
    @pytest.mark.parametrize("name", names())
    @given(data=st.data())
    def test_any_states_in_any_order_give_the_same_facts(self, name: str, data: st.DataObject) -> None:
        """The last state is among them. Fields may differ only as `MAY_DIFFER` says."""
        states = life(name)
        some = data.draw(st.lists(st.sampled_from(states), max_size=8).map(lambda some: [*some, states[-1]]))
        observed, full = first_observed(data.draw(st.permutations(some))), first_observed(states)
        assert {event.event_id for event in states[-1].events()} <= observed.keys() <= full.keys()
        for event_id, event in observed.items():
            assert differing(event, full[event_id]) <= MAY_DIFFER[event.event_type] | ALWAYS_MAY_DIFFER

    def test_the_same_state_gives_the_same_events(self) -> None:
        for sent in (sent for name in names() for sent in life(name)):
            again = lifecycle(Pod.of(sent.pod), IDENTITY, deleted=sent.deleted)
            assert [event.digest for event in again] == [event.digest for event in sent.events()]

    def test_created_is_equal_in_every_state(self) -> None:
        created = [event_of(sent.events(), "pod.created") for sent in life("labels_changed")]
        assert all(event.payload == created[0].payload for event in created)

    def test_only_the_first_observation_has_the_time_of_the_deletion_request(self) -> None:
        """The API server never sets `deletionTimestamp` into the past, and overwrites it at the removal."""
        requested = [
            event
            for sent in life("grace_period_shortened")
            for event in sent.events()
            if event.event_type == "pod.terminating"
        ]
        assert [event.payload["grace_period_seconds"] for event in requested] == [600, 5, 5, 0, 0]
        assert [event.time[11:19] for event in requested] == [
            "08:51:00",
            "08:52:25",
            "08:52:25",
            "08:52:32",
            "08:52:32",
        ]


class TestPayloads:
    def test_created(self) -> None:
        assert event_of(life("sidecar_after_main")[0].events(), "pod.created").payload == {
            "cluster": "kubernetes",
            "namespace": "work",
            "pod": "report-27-x7k2p",
            "pod_uid": life("sidecar_after_main")[0].pod["metadata"]["uid"],
            "service_account": "default",
            "restart_policy": "Never",
            "containers": ["main"],
            "init_containers": ["fetch", "proxy"],
        }

    def test_container_terminated(self) -> None:
        last = life("oom_killed")[-1]
        status = last.pod["status"]["containerStatuses"][0]
        assert event_of(last.events(), "pod.container_terminated").payload == {
            "cluster": "kubernetes",
            "namespace": "work",
            "pod": "report-20-x7k2p",
            "pod_uid": last.pod["metadata"]["uid"],
            "node": "node-a",
            "owner": {"api_version": "batch/v1", "kind": "Job", "name": "report-20"},
            "container": "main",
            "container_kind": "main",
            "image": "registry.example/work/runner:4.2",
            "image_id": status["imageID"],
            "restart": 0,
            "cause": "oom_killed",
            "exit_code": 137,
            "signal": 9,
            "reason": "OOMKilled",
            "container_id": status["containerID"],
            "started_at": "2026-07-01T08:02:02Z",
            "finished_at": "2026-07-01T08:02:41Z",
        }

    def test_absent_values_are_absent_in_payloads(self) -> None:
        """An empty text counts as absent: here in a pod that failed and was deleted without reasons."""
        waits = one_container({"waiting": {"reason": "ErrImagePull"}}, {"terminated": {"exitCode": 1}})
        pods = [pod_with(), pod_with(phase="", containerStatuses=waits)]
        events = [event for pod in pods for event in lifecycle(Pod.of(pod), IDENTITY, deleted=True)]
        assert {event.event_type for event in events} >= {
            *("pod.failed", "pod.deleted", "pod.container_waiting", "pod.container_terminated")
        }
        for event in events:
            assert "" not in event.payload.values(), event.payload

    def test_a_pod_of_a_knative_revision_has_its_names(self) -> None:
        running = event_of(life("knative_revision")[-1].events(), "pod.running").payload
        assert (running["knative_service"], running["knative_revision"]) == ("hello", "hello-00003")
        assert running["owner"]["kind"] == "ReplicaSet"
        assert running["images"] == {
            "user-container": "registry.example/hello:1.3",
            "queue-proxy": "registry.example/knative/queue:1.22",
        }

    def test_a_reconciled_deletion_has_the_time_of_its_confirmation(self) -> None:
        last = event_of(life("completed_job")[-1].events(), "pod.deleted")
        confirmed = reconciled_deletion(last, datetime(2026, 7, 2, tzinfo=UTC))
        assert confirmed.event_id == last.event_id
        assert confirmed.payload == last.payload | {"observed": "reconciled"}
        assert confirmed.time == "2026-07-02T00:00:00.000Z"


def pod_with(**status: Any) -> dict[str, Any]:
    """Return the pod of `exit_1` in the phase Failed, with this status."""
    pod = copy.deepcopy(life("exit_1")[-1].pod)
    pod["status"] = {"phase": "Failed", "startTime": "2026-07-01T08:01:00Z"} | status
    return pod


def found(name: str) -> dict[str, Any]:
    """Return a pod of the faults found from outside."""
    pod: dict[str, Any] = json.loads((ROOT / f"tests/fixtures/found/{name}.json").read_text())
    return pod


def ended(reason: str = "Error", exit_code: int = 1, finished: str = "2026-07-01T08:01:09Z", **more: Any) -> Any:
    return {"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": finished, **more}}


def one_container(state: dict[str, Any], last: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [{"name": "main", "state": state, "lastState": last or {}, "restartCount": 0}]


def disrupted(reason: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "lastTransitionTime": "2026-07-01T08:01:07Z",
        }
    ]


FAILURES: dict[str, tuple[str, dict[str, Any]]] = {
    "evicted, by the kubelet": ("evicted", {"reason": "Evicted"}),
    "evicted, over the API": (
        "evicted",
        {"conditions": disrupted("EvictionByEvictionAPI"), "containerStatuses": one_container(ended("Error", 143))},
    ),
    "evicted, the node shuts down": ("evicted", {"reason": "Terminated"}),
    "evicted, by a taint": ("evicted", {"conditions": disrupted("DeletionByTaintManager")}),
    "deadline exceeded": ("deadline_exceeded", {"reason": "DeadlineExceeded"}),
    "out of memory": ("oom_killed", {"containerStatuses": one_container(ended("OOMKilled", 137))}),
    "out of memory, in the last state": (
        "oom_killed",
        {"containerStatuses": one_container({"waiting": {"reason": "CrashLoopBackOff"}}, ended("OOMKilled", 137))},
    ),
    "out of memory, in an init container": (
        "oom_killed",
        {"initContainerStatuses": one_container(ended("OOMKilled", 137))},
    ),
    "image pull": ("image_pull", {"containerStatuses": one_container({"waiting": {"reason": "ErrImagePull"}})}),
    "error exit": ("error_exit", {"containerStatuses": one_container(ended())}),
    "error exit, the container could not start": (
        "error_exit",
        {"containerStatuses": one_container(ended("StartError", 128, startedAt="1970-01-01T00:00:00Z"))},
    ),
    "signal, from the exit code": ("signal", {"containerStatuses": one_container(ended("Error", 139))}),
    "signal, as it is": ("signal", {"containerStatuses": one_container(ended("Error", 1, signal=15))}),
    "node lost": ("node_lost", {"reason": "NodeLost"}),
    "node lost, found by the garbage collector": ("node_lost", {"conditions": disrupted("DeletionByPodGC")}),
    "preempted": (
        "preempted",
        {"conditions": disrupted("PreemptionByScheduler"), "containerStatuses": one_container(ended("Error", 143))},
    ),
    "preempted, by the kubelet": ("preempted", {"reason": "Preempting"}),
    "admission": ("admission", {"reason": "NodeAffinity"}),
    "admission, out of a resource": ("admission", {"reason": "OutOfnvidia.com/gpu"}),
    "admission, an unknown reason": (
        "admission",
        {"reason": "SomethingNew", "message": "Pod was rejected: because"},
    ),
    "unknown, no reason": ("unknown", {}),
    "unknown, the container was lost": (
        "unknown",
        {"containerStatuses": one_container(ended("ContainerStatusUnknown", 137))},
    ),
    "unknown, a disruption with status False": (
        "unknown",
        {"conditions": [disrupted("PreemptionByScheduler")[0] | {"status": "False"}]},
    ),
}


class TestFailures:
    @pytest.mark.guarantee("R15", "R16", "R17")
    @pytest.mark.parametrize("name", sorted(FAILURES))
    def test_the_cause_is_read_from_the_status(self, name: str) -> None:
        cause, status = FAILURES[name]
        events = lifecycle(Pod.of(pod_with(**status)), IDENTITY)
        assert event_of(events, "pod.failed").payload["cause"] == cause

    def test_out_of_memory_is_the_cause_although_another_container_ended_first(self) -> None:
        first, second = one_container(ended("Error", 1, "2026-07-01T08:01:05Z")), one_container(ended("OOMKilled", 137))
        second[0]["name"] = "cache"
        failed = event_of(lifecycle(Pod.of(pod_with(containerStatuses=first + second)), IDENTITY), "pod.failed")
        assert (failed.payload["container"], failed.payload["cause"]) == ("cache", "oom_killed")

    def test_a_container_with_a_start_error_was_not_running(self) -> None:
        status = one_container(ended("StartError", 128, startedAt="1970-01-01T00:00:00Z"))
        types = {event.event_type for event in lifecycle(Pod.of(pod_with(containerStatuses=status)), IDENTITY)}
        assert "pod.running" not in types
        assert "pod.container_terminated" in types

    def test_without_an_end_the_time_is_the_passed_deadline(self) -> None:
        pod = pod_with(reason="DeadlineExceeded")
        pod["spec"]["activeDeadlineSeconds"] = 60
        assert event_of(lifecycle(Pod.of(pod), IDENTITY), "pod.failed").time == "2026-07-01T08:02:00.000Z"

    def test_the_time_is_the_last_end_unless_a_container_is_shown_as_running(self) -> None:
        """The pods of a lost node keep their last status, so an earlier end is not the end of the pod."""
        running = {"running": {"startedAt": "2026-07-01T08:01:03Z"}}
        for state, at in ((running, "08:01:07"), (ended(), "08:01:09")):
            pod = pod_with(
                conditions=disrupted("DeletionByPodGC"),
                initContainerStatuses=one_container(ended("Completed", 0, "2026-07-01T08:01:02Z")),
                containerStatuses=one_container(state),
            )
            assert event_of(lifecycle(Pod.of(pod), IDENTITY), "pod.failed").time[11:19] == at

    @pytest.mark.parametrize("waiting", [{}, {"reason": "ContainerCreating"}])
    def test_while_the_next_run_is_created_the_last_end_has_the_previous_restart(self, waiting: dict[str, str]) -> None:
        """The next container is made and counted, and does not run yet; or the kubelet cannot find it."""
        pod = pod_with(
            phase="Running", containerStatuses=one_container({"waiting": waiting}, ended(containerID="containerd://1"))
        )
        pod["status"]["containerStatuses"][0]["restartCount"] = 1
        end = event_of(lifecycle(Pod.of(pod), IDENTITY), "pod.container_terminated")
        assert end.payload["restart"] == 0

    def test_a_disruption_has_the_time_of_its_condition(self) -> None:
        pod = pod_with(conditions=disrupted("DeletionByPodGC"))
        assert event_of(lifecycle(Pod.of(pod), IDENTITY), "pod.failed").time == "2026-07-01T08:01:07.000Z"

    @pytest.mark.fault("C12")
    @pytest.mark.parametrize("other_exit", [None, 1, 143])
    def test_out_of_memory_with_exit_code_0_is_the_cause(self, other_exit: int | None) -> None:
        pod = found("P01-init-oomkilled-exit-0")
        if other_exit is not None:
            pod["status"]["containerStatuses"][0]["state"] = ended("Error", other_exit)
        failed = event_of(lifecycle(Pod.of(pod), IDENTITY), "pod.failed").payload
        assert (failed["cause"], failed["container"], failed["exit_code"]) == ("oom_killed", "stress-init", 0)
        assert failed["reason"] == "OOMKilled"

    @pytest.mark.fault("C12")
    @pytest.mark.parametrize("reason", ["MatchNodeSelector", "PodFitsHostPorts", "HostName", "SMTAlignmentError"])
    def test_the_reasons_of_older_kubelets_are_known(self, reason: str) -> None:
        pod = found("P10-smt-old-kubelet")
        pod["status"]["reason"] = reason
        failed = event_of(lifecycle(Pod.of(pod), IDENTITY), "pod.failed").payload
        assert failed["cause"] == "admission"
        assert failed["message"].startswith("Pod SMT Alignment Error")

    @pytest.mark.fault("C12")
    def test_a_finished_pod_that_a_restarted_kubelet_refuses_has_succeeded(self) -> None:
        """Both states give the same facts."""
        before, after = (Pod.of(found(name)) for name in ("P11-succeeded", "P11-then-failed"))
        facts = [(event.event_id, event.digest) for event in lifecycle(before, IDENTITY)]
        assert [(event.event_id, event.digest) for event in lifecycle(after, IDENTITY)] == facts
        assert "pod.failed" not in {event.event_type for event in lifecycle(after, IDENTITY)}

    @pytest.mark.fault("C12")
    @pytest.mark.parametrize(
        "status",
        [
            {"reason": "DeadlineExceeded", "containerStatuses": one_container(ended("Completed", 0))},
            {"reason": "UnexpectedAdmissionError", "containerStatuses": one_container(ended("Error", 1))},
            {"reason": "UnexpectedAdmissionError", "containerStatuses": one_container(ended("OOMKilled", 0))},
            {"reason": "UnexpectedAdmissionError", "containerStatuses": one_container({"waiting": {}})},
            {"reason": "UnexpectedAdmissionError"},
        ],
    )
    def test_a_refused_or_stopped_pod_has_failed_unless_all_containers_completed(self, status: dict[str, Any]) -> None:
        types = {event.event_type for event in lifecycle(Pod.of(pod_with(**status)), IDENTITY)}
        assert "pod.failed" in types
        assert "pod.succeeded" not in types

    @pytest.mark.fault("C12")
    def test_reason_and_message_of_a_disruption_are_kept(self) -> None:
        condition = disrupted("PreemptionByScheduler")[0] | {"message": "preempting to accommodate a pod"}
        status = {"conditions": [condition], "containerStatuses": one_container(ended("Error", 143))}
        failed = event_of(lifecycle(Pod.of(pod_with(**status)), IDENTITY), "pod.failed").payload
        assert (failed["reason"], failed["message"]) == ("PreemptionByScheduler", "preempting to accommodate a pod")
        other = event_of(lifecycle(Pod.of(pod_with(**status, reason="Evicted")), IDENTITY), "pod.failed").payload
        assert (other["reason"], "message" in other) == ("Evicted", False)


class TestIdentity:
    @pytest.mark.guarantee("R21")
    def test_aggregate_correlation_and_user_come_from_their_labels(self) -> None:
        for event in life("completed_job")[-1].events():
            assert event.aggregate_id == "execution-17"
            assert event.metadata.correlation_id == "request-17"
            assert event.metadata.user_id == "user-3"

    @pytest.mark.guarantee("R21")
    def test_an_annotation_can_replace_a_label(self) -> None:
        assert {event.aggregate_id for event in life("deleted_while_running")[-1].events()} == {"web-rollout-4"}

    @pytest.mark.guarantee("R21", "R22")
    def test_without_an_id_of_the_work_the_aggregate_is_the_pod(self) -> None:
        last = life("crash_loop")[-1]
        for event in last.events():
            assert event.aggregate_id == last.pod["metadata"]["uid"]
            assert event.metadata.correlation_id is None
            assert event.metadata.user_id is None

    @pytest.mark.guarantee("R21")
    def test_the_first_present_label_counts(self) -> None:
        identity = Identity("local", ("missing", "job-name"), ("job-name",), ())
        event = life("exit_1")[-1].events(identity)[0]
        assert (event.aggregate_id, event.metadata.correlation_id) == ("report-18", "report-18")

    def test_an_invalid_value_is_skipped(self) -> None:
        pod = copy.deepcopy(life("exit_1")[-1].pod)
        pod["metadata"]["annotations"] = {"one": "line\nbreak", "two": "x" * 2000, "three": "usable"}
        identity = Identity("local", ("one", "two", "three"), (), ())
        assert {event.aggregate_id for event in lifecycle(Pod.of(pod), identity)} == {"usable"}


class TestNoPod:
    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"kind": "Node"}, "data.kind"),
            ({"apiVersion": "v2"}, "data.apiVersion"),
            ({"metadata": {"name": "x"}}, "data.metadata.uid"),
            ({"spec": None}, "data.spec"),
            ({"status": {"conditions": "none"}}, "data.status.conditions"),
            ({"status": {"startTime": "yesterday"}}, "data.status.startTime"),
        ],
    )
    def test_the_error_names_the_wrong_field(self, change: dict[str, Any], where: str) -> None:
        with pytest.raises(Invalid) as caught:
            Pod.of(life("exit_1")[-1].pod | change)
        assert where in [problem.where for problem in caught.value.problems]

    def test_null_counts_as_absent(self) -> None:
        pod = copy.deepcopy(life("no_status")[0].pod)
        pod["status"] = {"conditions": None, "containerStatuses": None, "startTime": None}
        pod["metadata"] |= {"labels": None, "annotations": None, "ownerReferences": None, "managedFields": None}
        assert timeline(lifecycle(Pod.of(pod), IDENTITY)) == ["08:38:00 created"]
