"""Services, images and pods that are not as they must be: each is found out."""

from collections.abc import Callable

import pytest

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered
from dev.manifests.rules_functions import (
    SCALE,
    each_function_has_a_service,
    images_are_ours_and_pinned,
    no_pod_has_more_than_it_needs,
    only_what_people_call_is_open,
    probes_ask_whether_it_answers,
    scale_and_resources_are_said,
)
from tests.manifests.breaking import (
    Broken,
    Overlays,
    annotations,
    container,
    list_of,
    pod,
    service,
    setup,
    the,
    without,
)

pytestmark = pytest.mark.dev


def sharing(name: str) -> Callable[[Rendered], object]:
    """The change that gives a pod what is the node's."""
    return lambda rendered: pod(rendered).update({name: True})


BROKEN = (
    Broken(
        each_function_has_a_service,
        "no Service",
        lambda r: list_of(r).remove(service(r)),
        "functions/store has no Knative Service",
    ),
    Broken(
        each_function_has_a_service,
        "a Service of no function",
        lambda r: service(r)["metadata"].update(name="shop"),
        "functions/shop/main.py is not there",
    ),
    Broken(
        each_function_has_a_service,
        "another function's image",
        lambda r: container(r).update(image="twofold-relay:0.1.0"),
        "not the image of functions/store",
    ),
    Broken(
        images_are_ours_and_pinned,
        "no tag",
        lambda r: container(r).update(image="twofold-store"),
        "has no tag of its own",
    ),
    Broken(
        images_are_ours_and_pinned,
        "latest",
        lambda r: container(r).update(image="twofold-store:latest"),
        "has no tag of its own",
    ),
    Broken(
        images_are_ours_and_pinned,
        "another version",
        lambda r: container(r).update(image="twofold-store:0.0.1"),
        "is not of version",
    ),
    Broken(
        images_are_ours_and_pinned,
        "another's image",
        lambda r: container(r).update(image="mongo:6.0.5"),
        "skaffold.yaml builds no image mongo",
    ),
    Broken(
        images_are_ours_and_pinned,
        "a server's image unpinned",
        lambda r: the(r, "StatefulSet", "kafka")["spec"]["template"]["spec"]["containers"][0].update(
            image="apache/kafka:latest"
        ),
        "has no tag of its own",
        "local",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "root by default",
        lambda r: container(r)["securityContext"].pop("runAsNonRoot"),
        "may run as root",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "root by number",
        lambda r: container(r)["securityContext"].update(runAsUser=0),
        "may run as root",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "root in the set-up",
        lambda r: setup(r)["containers"][0].pop("securityContext"),
        "Job setup",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "root in a server",
        lambda r: the(r, "StatefulSet", "mongodb")["spec"]["template"]["spec"].pop("securityContext"),
        "StatefulSet mongodb",
        "local",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "escalation",
        lambda r: container(r)["securityContext"].pop("allowPrivilegeEscalation"),
        "may become root",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "privileged",
        lambda r: container(r)["securityContext"].update(privileged=True),
        "is privileged",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "capabilities",
        lambda r: container(r)["securityContext"].pop("capabilities"),
        "keeps capabilities",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "a capability added",
        lambda r: container(r)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
        "keeps capabilities",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "no seccomp",
        lambda r: container(r)["securityContext"].pop("seccompProfile"),
        "seccomp",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "a root file system to write to",
        lambda r: container(r)["securityContext"].update(readOnlyRootFilesystem=False),
        "can be written to",
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "nowhere to write",
        lambda r: pod(r)["volumes"][0].pop("emptyDir"),
        "/tmp is no emptyDir",
    ),
    Broken(
        only_what_people_call_is_open,
        "an open sink",
        lambda r: service(r)["metadata"]["labels"].pop("networking.knative.dev/visibility"),
        "can be reached from outside",
    ),
    Broken(
        only_what_people_call_is_open,
        "a closed door",
        lambda r: service(r, "publish")["metadata"]["labels"].update(
            {"networking.knative.dev/visibility": "cluster-local"}
        ),
        "can't be reached",
    ),
    Broken(
        probes_ask_whether_it_answers,
        "Knative's default",
        lambda r: container(r).pop("readinessProbe"),
        "readinessProbe is not",
    ),
    Broken(
        probes_ask_whether_it_answers,
        "another path",
        lambda r: container(r)["livenessProbe"]["httpGet"].update(path="/"),
        "livenessProbe is not",
    ),
    *(
        Broken(
            scale_and_resources_are_said,
            f"no {name}",
            without(annotations, f"autoscaling.knative.dev/{name}"),
            f"{name} is not said",
        )
        for name in SCALE
    ),
    *(
        Broken(
            no_pod_has_more_than_it_needs,
            name,
            sharing(name),
            f"Service store: {name} shares the node's",
        )
        for name in ("hostNetwork", "hostPID", "hostIPC")
    ),
    Broken(
        no_pod_has_more_than_it_needs,
        "a folder of the node",
        lambda r: pod(r)["volumes"].append({"name": "node", "hostPath": {"path": "/etc"}}),
        "the volume node is a folder of the node",
    ),
    Broken(
        scale_and_resources_are_said,
        "no pod for the log",
        lambda r: annotations(r).update({"autoscaling.knative.dev/min-scale": "0"}),
        "Service store: min-scale is 0",
    ),
    Broken(
        scale_and_resources_are_said,
        "no pod for the cluster's pods",
        lambda r: annotations(r, "pod_events").update({"autoscaling.knative.dev/min-scale": "0"}),
        "Service pod-events: min-scale is 0",
    ),
    Broken(
        scale_and_resources_are_said,
        "one at a time",
        lambda r: pod(r).update(containerConcurrency=1),
        "containerConcurrency is not 0",
    ),
    Broken(
        scale_and_resources_are_said,
        "no bound",
        lambda r: annotations(r).update({"autoscaling.knative.dev/max-scale": "0"}),
        "without bounds",
    ),
    Broken(
        scale_and_resources_are_said,
        "no concurrency",
        lambda r: pod(r).pop("containerConcurrency"),
        "containerConcurrency is not said",
    ),
    Broken(
        scale_and_resources_are_said,
        "no time-out",
        lambda r: pod(r).pop("timeoutSeconds"),
        "timeoutSeconds is not said",
    ),
    Broken(
        scale_and_resources_are_said,
        "no limit",
        lambda r: container(r)["resources"].pop("limits"),
        "resources lack",
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
