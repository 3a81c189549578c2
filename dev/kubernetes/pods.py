"""What a scheduler and a kubelet do to a pod, over the API: there are none behind the control plane."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dev.kubernetes.api import Api, Manifest

NODE = "node-1"


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


WATCHED = {"twofold.dev/watch": "true"}
"""The label of pods that have events."""


def a_pod(namespace: str, name: str, *containers: str, **spec: Any) -> Manifest:
    """A pod to be created, which our manifests' source watches, with a container `main` unless others are named."""
    listed = [{"name": container, "image": "registry.example/work:1"} for container in containers or ("main",)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(WATCHED)},
        "spec": {"containers": listed, "restartPolicy": "Never", **spec},
    }


class Kubelet:
    """Drives pods through their states as the scheduler and the kubelet of `NODE` do.

    What one report says has one moment: a container never starts in a second before its pod is initialized.
    """

    def __init__(self, api: Api, clock: Callable[[], str] = now) -> None:
        self._api = api
        self._clock = clock

    def bind(self, pod: Manifest, node: str = NODE) -> None:
        """The scheduler's part: the server itself then writes the condition `PodScheduled`."""
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        self._api.send("POST", f"{self._api.path_of(pod)}/binding", binding)

    def find_no_node(self, pod: Manifest, message: str) -> None:
        """The scheduler's other part: it tries again and again."""
        condition = _condition("PodScheduled", "False", self._clock()) | {"reason": "Unschedulable", "message": message}
        self._api.set_status(pod, {"conditions": [condition]})

    def run(self, pod: Manifest) -> Manifest:
        """Every container runs."""
        at = self._clock()
        running = {"state": {"running": {"startedAt": at}}, "ready": True}
        return self._report(pod, at, "Running", running, ready="True")

    def wait(self, pod: Manifest, reason: str, message: str = "") -> Manifest:
        """No container runs yet, for that reason: `ImagePullBackOff`, `CreateContainerConfigError`..."""
        waiting = {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False}
        return self._report(pod, self._clock(), "Pending", waiting, ready="False")

    def end(self, pod: Manifest, exit_code: int, reason: str, **why: Any) -> Manifest:
        """Every container has ended so; with `restartPolicy: Never` that is the pod's end."""
        at = self._clock()
        running = [
            status["state"].get("running") for status in self._api.get(pod)["status"].get("containerStatuses", [])
        ]
        started = next((state["startedAt"] for state in running if state), at)
        ended = {"exitCode": exit_code, "reason": reason, "startedAt": started, "finishedAt": at, **why}
        phase = "Failed" if exit_code else "Succeeded"
        return self._report(pod, at, phase, {"state": {"terminated": ended}, "ready": False}, ready="False")

    def fail(self, pod: Manifest, reason: str, message: str) -> Manifest:
        """The pod fails as a whole, as when it is evicted; nothing is said of its containers."""
        status = {"phase": "Failed", "reason": reason, "message": message, "containerStatuses": None}
        return self._api.set_status(pod, status)

    def delete(self, pod: Manifest) -> None:
        """What anybody may ask for: the pod is to end within its grace period."""
        self._api.delete(pod)

    def remove(self, pod: Manifest) -> None:
        """The kubelet's last word: what was to be removed is."""
        self._api.delete(pod, grace_period_s=0)

    def _report(self, pod: Manifest, at: str, phase: str, state: dict[str, Any], *, ready: str) -> Manifest:
        seen = self._api.get(pod)
        started = seen["status"].get("startTime", at)
        statuses = [_container_status(container, state) for container in seen["spec"]["containers"]]
        known = {condition["type"]: condition for condition in seen["status"].get("conditions", [])}
        for kind, is_so in (("Ready", ready), ("ContainersReady", ready), ("Initialized", "True")):
            if known.get(kind, {}).get("status") != is_so:  # else it has been so since then
                known[kind] = _condition(kind, is_so, at)
        status = {"phase": phase, "startTime": started, "hostIP": "10.1.0.1", "podIP": "10.2.0.1"}
        return self._api.set_status(pod, status | {"conditions": [*known.values()], "containerStatuses": statuses})


def _container_status(container: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": f"{container['image']}@sha256:1",
        "containerID": f"containerd://{container['name']}-0" if "waiting" not in state["state"] else "",
        "restartCount": 0,
        **state,
    }


def _condition(kind: str, status: str, since: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "lastTransitionTime": since}
