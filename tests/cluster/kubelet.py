"""Pods, and the work of a scheduler and a kubelet on them, over the API."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.kubernetes.api import Api, Manifest

NODE = "node-1"

WATCHED = {"twofold.dev/watch": "true"}
"""The label of pods that have events."""


def now() -> str:
    """Return the time in Kubernetes' format."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def a_pod(namespace: str, name: str, *containers: str, **spec: Any) -> Manifest:
    """Return a new pod with the watched label. Its default container is `main`."""
    listed = [{"name": container, "image": "registry.example/work:1"} for container in containers or ("main",)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(WATCHED)},
        "spec": {"containers": listed, "restartPolicy": "Never", **spec},
    }


class Kubelet:
    """The scheduler and the kubelet of `NODE`.

    All times of a report are equal: a container never starts a second before its pod is initialized.
    """

    def __init__(self, api: Api, clock: Callable[[], str] = now) -> None:
        self._api = api
        self._clock = clock

    def bind(self, pod: Manifest, node: str = NODE) -> None:
        """Schedule the pod. The server then writes the condition `PodScheduled` itself."""
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        self._api.send("POST", f"{self._api.path_of(pod)}/binding", binding)

    def find_no_node(self, pod: Manifest, message: str) -> None:
        """Report that the scheduler found no node."""
        condition = _condition("PodScheduled", "False", self._clock()) | {"reason": "Unschedulable", "message": message}
        self._api.set_status(pod, {"conditions": [condition]})

    def run(self, pod: Manifest) -> Manifest:
        """Report every container as running."""
        at = self._clock()
        running = {"state": {"running": {"startedAt": at}}, "ready": True}
        return self._report(pod, at, "Running", running)

    def wait(self, pod: Manifest, reason: str, message: str = "") -> Manifest:
        """Report every container as waiting with this reason: `ImagePullBackOff`, `CreateContainerConfigError`..."""
        waiting = {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False}
        return self._report(pod, self._clock(), "Pending", waiting)

    def end(self, pod: Manifest, exit_code: int, reason: str, **details: Any) -> Manifest:
        """Report the end of every container, and so of the pod: its `restartPolicy` is `Never`."""
        at = self._clock()
        statuses = self._api.get(pod)["status"].get("containerStatuses", [])
        started = [status["state"]["running"]["startedAt"] for status in statuses if "running" in status["state"]]
        times = {"startedAt": started[0] if started else at, "finishedAt": at}
        terminated = {"exitCode": exit_code, "reason": reason, **times, **details}
        phase = "Failed" if exit_code else "Succeeded"
        return self._report(pod, at, phase, {"state": {"terminated": terminated}, "ready": False})

    def fail(self, pod: Manifest, reason: str, message: str) -> Manifest:
        """Report a failed pod without containers, such as an evicted pod."""
        status = {"phase": "Failed", "reason": reason, "message": message, "containerStatuses": None}
        return self._api.set_status(pod, status)

    def delete(self, pod: Manifest) -> None:
        """Request the pod's end within its grace period, as a user does."""
        self._api.delete(pod)

    def remove(self, pod: Manifest) -> None:
        """Remove the pod, as the kubelet does after the pod's end."""
        self._api.delete(pod, grace_period_s=0)

    def _report(self, pod: Manifest, at: str, phase: str, state: dict[str, Any]) -> Manifest:
        seen = self._api.get(pod)
        ready = "True" if state["ready"] else "False"
        statuses = [_container_status(container, state) for container in seen["spec"]["containers"]]
        known = {condition["type"]: condition for condition in seen["status"].get("conditions", [])}
        for kind, status in (("Ready", ready), ("ContainersReady", ready), ("Initialized", "True")):
            if known.get(kind, {}).get("status") != status:  # an unchanged condition keeps its time
                known[kind] = _condition(kind, status, at)
        started = seen["status"].get("startTime", at)
        address = {"hostIP": "10.1.0.1", "podIP": "10.2.0.1"}
        report = {"phase": phase, "startTime": started, **address, "conditions": [*known.values()]}
        return self._api.set_status(pod, report | {"containerStatuses": statuses})


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
