"""Every rule holds in both overlays, and reports the broken manifests of a table."""

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from dev.manifests import rules_access as access
from dev.manifests import rules_functions as functions
from dev.manifests import rules_network as network
from dev.manifests import rules_pods as pods
from dev.manifests import rules_production as production
from dev.manifests import rules_settings as fields
from dev.manifests import rules_sources as sources
from dev.manifests.check import RULES, Rule, complaints, complaints_of
from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS, Rendered
from tests.manifests.breaking import (
    Change,
    Overlays,
    annotations,
    bound,
    config_map,
    container,
    delivery,
    env,
    gone,
    granted,
    list_of,
    operator,
    pod,
    service,
    settings,
    setup,
    source,
    the,
    without,
)

LOCAL = "networking.knative.dev/visibility"
MIN_SCALE, MAX_SCALE = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale"
SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}


def unchanged(_: Rendered) -> None:
    """Leave the overlay as it is."""


@dataclass(frozen=True)
class Broken:
    """A change of an overlay, or of the facts of the code, and the words of the complaint."""

    rule: Rule
    words: str
    change: Change = unchanged
    overlay: str = "production"
    facts: Mapping[str, Callable[[Any], object]] = field(default_factory=dict)

    def complaints(self, overlays: Overlays, project: Project) -> list[str]:
        rendered = deepcopy(overlays[self.overlay])
        self.change(rendered)
        facts: dict[str, Any] = {name: change(getattr(project, name)) for name, change in self.facts.items()}
        return list(complaints_of(self.rule, rendered, replace(project, **facts)))

    def __str__(self) -> str:
        return f"{self.rule.__name__}: {self.words}"


def subject(kind: str, name: str, namespace: str) -> Change:
    """Make a change that gives the permissions of pod_events to one more subject."""
    more = {"kind": kind, "name": name, "namespace": namespace}
    return lambda r: the(r, "ClusterRoleBinding", "twofold-pod-events")["subjects"].append(more)


def policy(rendered: Rendered, name: str, direction: str) -> Any:
    return the(rendered, "NetworkPolicy", name)["spec"][direction]


def context(rendered: Rendered) -> Any:
    return container(rendered)["securityContext"]


def without_its_hash(name: str) -> Change:
    """Make a change that removes the hash from the name of a ConfigMap, and from every reference."""

    def change(rendered: Rendered) -> None:
        hashed = config_map(rendered, name)["metadata"]["name"]
        list_of(rendered)[:] = json.loads(json.dumps(rendered.objects).replace(hashed, name))

    return change


def timeout(function: str, seconds: int) -> Change:
    """Make a change of the timeout of a function."""
    return lambda r: pod(r, function).update(timeoutSeconds=seconds)


def closed(name: str) -> Change:
    """Make a change that removes the egress rules of a policy."""
    return lambda r: policy(r, name, "egress").clear()


def opened(name: str, rule: object, direction: str = "egress") -> Change:
    """Make a change that adds a rule to a policy."""
    return lambda r: policy(r, name, direction).append(rule)


SOURCES = (
    Broken(sources.require_sinks, "0 objects of kind KafkaSource have the Service store", gone("KafkaSource", "store")),
    Broken(
        sources.require_sinks,
        "2 objects of kind KafkaSource",
        lambda r: list_of(r).append(the(r, "KafkaSource", "store")),
    ),
    Broken(sources.require_sinks, "0 objects of kind ApiServerSource", gone("ApiServerSource", "pod-events")),
    Broken(sources.require_sinks, "0 objects of kind PingSource", gone("PingSource", "relay")),
    Broken(
        sources.require_sinks,
        "have the Service dead-letters as their deadLetterSink",
        lambda r: delivery(r)["deadLetterSink"]["ref"].update(name="store"),
    ),
    Broken(sources.require_sinks, "timeout is PT5S", lambda r: delivery(r).update(timeout="PT5S")),
    Broken(sources.require_sinks, "timeout is PT600S", lambda r: delivery(r).update(timeout="PT600S")),
    *(
        Broken(sources.require_delivery, f"delivery.{name} is missing", without(delivery, name))
        for name in sources.DELIVERY
    ),
    *(
        Broken(sources.require_delivery, f"{name} is None, and must be", without(source, name))
        for name in ("initialOffset", "ordering", "topics", "consumerGroup", "bootstrapServers")
    ),
    Broken(
        sources.require_delivery,
        "key-type is None, and must be 'byte-array'",
        lambda r: the(r, "KafkaSource", "store")["metadata"].pop("labels"),
    ),
    Broken(sources.require_retries, "stops retrying after 0:00:00", lambda r: delivery(r).update(backoffDelay="PT0S")),
    Broken(sources.require_delivery, "more than SETUP_TOPIC_PARTITIONS", lambda r: source(r).update(consumers=13)),
    Broken(sources.require_retries, "stops retrying after 22:16:40", lambda r: delivery(r).update(retry=400)),
    Broken(
        sources.require_retries,
        "stops retrying after 14:05:37.5",
        lambda r: delivery(r).update(backoffDelay="PT0.5S"),
    ),
    Broken(sources.require_retries, "after 0:00:00", lambda r: delivery(r).update(backoffPolicy="quadratic")),
    Broken(sources.require_retries, "stops retrying after 0:10:13.8", without(source, "delivery")),
    Broken(
        sources.require_retries,
        "keeps records for 1 day",
        lambda r: settings(r).update(SETUP_TOPIC_RETENTION_DAYS="1"),
    ),
    Broken(
        sources.require_timers,
        "schedule is '0 * * * *'",
        lambda r: source(r, "PingSource").update(schedule="0 * * * *"),
    ),
    Broken(sources.require_pods, "mode is None", lambda r: source(r, "ApiServerSource").pop("mode")),
    Broken(sources.require_pods, "lacks a member", lambda r: source(r, "ApiServerSource").pop("resources")),
    Broken(
        sources.require_pods,
        "selector is not PODS_SELECTOR",
        lambda r: settings(r).update(PODS_SELECTOR="app=shop"),
    ),
    Broken(
        sources.require_pods,
        "namespaces are not PODS_NAMESPACE",
        lambda r: source(r, "ApiServerSource").pop("namespaceSelector"),
    ),
    Broken(
        production.require_replicas,
        "3 of 3 replicas",
        lambda r: settings(r).update(SETUP_TOPIC_MIN_INSYNC_REPLICAS="3"),
    ),
)

OTHERS = (
    Broken(
        functions.require_services,
        "Service is missing: write knative/base/shop.yaml",
        facts={"functions": lambda found: found | {"shop"}},
    ),
    Broken(
        functions.require_services,
        "artifact is missing: add FUNCTION: shop to skaffold.yaml",
        facts={"artifacts": lambda found: {**found, "twofold-shop": "shop"}},
    ),
    Broken(
        functions.require_services,
        "functions/shop/main.py or its Knative Service",
        lambda r: service(r)["metadata"].update(name="shop"),
    ),
    Broken(
        functions.require_images,
        "another image of functions/store",
        lambda r: container(r).update(image="twofold-relay:0.1.0"),
    ),
    Broken(
        functions.require_images,
        "tag of twofold-store is 0.0.1",
        lambda r: container(r).update(image="twofold-store:0.0.1"),
    ),
    Broken(functions.require_images, "builds no image mongo", lambda r: container(r).update(image="mongo:6.0.5")),
    Broken(
        functions.require_images,
        "tag of apache/kafka is latest",
        lambda r: the(r, "StatefulSet", "kafka")["spec"]["template"]["spec"]["containers"][0].update(
            image="apache/kafka:latest"
        ),
        "local",
    ),
    Broken(functions.require_visibility, "store: add the label", lambda r: service(r)["metadata"]["labels"].pop(LOCAL)),
    Broken(
        functions.require_visibility,
        "publish: remove the label",
        lambda r: service(r, "publish")["metadata"]["labels"].update({LOCAL: "cluster-local"}),
    ),
    Broken(
        functions.require_visibility,
        "admin: add the label",
        lambda r: service(r, "admin")["metadata"]["labels"].pop(LOCAL),
    ),
    Broken(
        functions.require_visibility,
        "audit: remove the label",
        lambda r: service(r, "audit")["metadata"].update(annotations={functions.CHOSEN: "true"}),
    ),
    Broken(
        functions.require_visibility,
        "store: remove the annotation twofold.dev/public",
        lambda r: service(r)["metadata"].update(annotations={functions.CHOSEN: "true"}),
    ),
    Broken(functions.require_operator, "Deployment operator is missing", gone("Deployment", "operator")),
    Broken(
        functions.require_operator,
        "runs twofold-relay:0.1.0",
        lambda r: operator(r)["containers"][0].update(image="twofold-relay:0.1.0"),
    ),
    Broken(
        functions.require_operator,
        "MONGODB_URI is 'mongodb://operator:<mongodb-relay/password>@",
        lambda r: operator(r)["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"].update(name="mongodb-relay"),
    ),
    Broken(functions.require_scale, "pod-events: min-scale", lambda r: annotations(r, "pod_events").pop(MIN_SCALE)),
    Broken(
        functions.require_scale,
        "Service store: max-scale must be 1 or more",
        lambda r: annotations(r).update({MAX_SCALE: "0"}),
    ),
    Broken(
        functions.require_scale,
        "Service query: max-scale must be 1 or more",
        lambda r: service(r, "query")["spec"]["template"]["metadata"].pop("annotations"),
    ),
    *(
        Broken(
            functions.require_scale,
            f"Service {name}: max-scale must be 1 or more, and containerConcurrency must be there",
            without(partial(pod, name=name), "containerConcurrency"),
        )
        for name in ("audit", "admin")
    ),
    Broken(functions.require_scale, "containerConcurrency must be 0", lambda r: pod(r).update(containerConcurrency=1)),
    Broken(
        functions.require_users,
        "MONGODB_URI is 'mongodb://relay:",
        lambda r: env(r, "MONGODB_URI").update(value=env(r, "MONGODB_URI", "relay")["value"]),
    ),
    Broken(
        functions.require_users,
        "store:<mongodb-relay/password>@",
        lambda r: env(r, "MONGODB_PASSWORD")["valueFrom"]["secretKeyRef"].update(name="mongodb-relay"),
    ),
    Broken(functions.require_users, "MONGODB_PASSWORD_STORE is None", lambda r: setup(r)["containers"][0].pop("env")),
    Broken(functions.require_users, "has no role store", facts={"roles": lambda found: found - {"store"}}),
    Broken(
        fields.require_field_names,
        "RELAY_BACKOFF_S is no setting",
        lambda r: settings(r).update(RELAY_BACKOFF_S="1"),
    ),
    Broken(fields.require_field_names, "RELAY_BATCH is in no manifest", without(settings, "RELAY_BATCH")),
    Broken(
        fields.require_defaults,
        "RELAY_BATCH is 10, and its default is 1000",
        facts={"base_settings": lambda found: {**found, "RELAY_BATCH": "10"}},
    ),
    Broken(fields.require_valid_values, "RELAY_BATCH: Input should", lambda r: settings(r).update(RELAY_BATCH="many")),
    Broken(fields.require_valid_values, "store: MONGODB_URI: Field", lambda r: container(r).update(env=[])),
    Broken(fields.require_valid_values, "ConfigMap mongodb", lambda r: list_of(r).remove(config_map(r, "mongodb"))),
    Broken(
        fields.require_valid_values,
        "MONGODB_URI uses",
        lambda r: container(r).update(env=container(r)["env"][::-1]),
    ),
    *(
        Broken(
            fields.require_timeouts,
            f"{name.replace('_', '-')}: timeoutSeconds must be more than its budget of {budget} s",
            timeout(name, budget),
        )
        for name, budget in {"relay": 50, "pod_events": 30, "store": 4, "query": 240, "audit": 25, "admin": 30}.items()
    ),
    Broken(
        fields.require_secrets,
        "remove it from the tree",
        lambda r: list_of(r).append({"kind": "Secret", "metadata": {"name": "kafka"}, "apiVersion": "v1"}),
    ),
    Broken(
        fields.require_secrets,
        "KAFKA_SASL_PASSWORD must come from a Secret",
        lambda r: container(r)["env"].append({"name": "KAFKA_SASL_PASSWORD", "value": "secret"}),
    ),
    Broken(
        fields.require_secrets,
        "move KUBERNETES_TOKEN into a Secret",
        lambda r: settings(r).update(KUBERNETES_TOKEN=""),
    ),
    Broken(
        fields.require_secrets,
        "KUBERNETES_TOKEN must come from a Secret",
        lambda r: container(r)["env"].append({"name": "KUBERNETES_TOKEN", "value": "secret"}),
    ),
    Broken(
        fields.require_secrets,
        "move AUTH_JWKS_URL into a Secret",
        lambda r: settings(r).update(AUTH_JWKS_URL="https://user:secret@issuer.example.com/keys"),
    ),
    Broken(
        fields.require_secrets,
        "move password into a Secret",
        lambda r: config_map(r, "mongodb")["data"].update(password="secret"),
    ),
    *(
        Broken(fields.require_references, f"the name of ConfigMap {name} lacks the hash", without_its_hash(name))
        for name in ("settings", "mongodb")
    ),
    Broken(
        fields.require_references,
        "Service store: ConfigMap settings is not in the overlay",
        lambda r: container(r)["envFrom"][0]["configMapRef"].update(name="settings"),
    ),
    Broken(
        fields.require_references,
        "Service store: envFrom lacks the ConfigMap settings",
        lambda r: container(r).pop("envFrom"),
        "local",
    ),
    Broken(
        fields.require_references,
        "Job setup: ServiceAccount nobody is not in the overlay",
        lambda r: setup(r).update(serviceAccountName="nobody"),
    ),
    Broken(fields.require_references, "'serviceAccountName'", lambda r: pod(r).pop("serviceAccountName")),
    Broken(
        fields.require_references,
        "Service store: Secret mongodb-store is not in the overlay",
        gone("Secret", "mongodb-store"),
        "local",
    ),
    Broken(fields.require_references, "Namespace twofold is not in the overlay", gone("Namespace", "twofold")),
    Broken(access.require_permissions, "does not need the permission get secrets", granted("store", SECRETS)),
    Broken(
        access.require_permissions,
        "pod-events: lacks the permission list pods",
        gone("ClusterRoleBinding", "twofold-pod-events"),
    ),
    Broken(
        access.require_permissions,
        "ServiceAccount store: automountServiceAccountToken is None",
        lambda r: the(r, "ServiceAccount", "store").pop("automountServiceAccountToken"),
    ),
    Broken(
        access.require_permissions,
        "Service pod-events: automountServiceAccountToken is True",
        lambda r: pod(r, "pod_events").update(automountServiceAccountToken=True),
    ),
    Broken(
        access.require_calls,
        "ServiceAccount pod-source",
        lambda r: source(r, "ApiServerSource")["resources"].append({"kind": "Job"}),
    ),
    Broken(
        access.require_calls,
        "ServiceAccount pod-events",
        facts={"calls": lambda found: {**found, "pod_events": found["pod_events"] | {("", "pods", "delete")}}},
    ),
    Broken(access.require_bindings, "may allow anything", bound("store", "ClusterRole", "cluster-admin")),
    Broken(access.require_bindings, "Group everybody", subject("Group", "everybody", "twofold")),
    Broken(access.require_bindings, "ServiceAccount store is no", subject("ServiceAccount", "store", "default")),
    Broken(network.require_closed_default, "closes all pods", gone("NetworkPolicy", "nothing-else")),
    *(
        Broken(network.require_egress, f"{name}: open egress to {port}", closed(name))
        for name, port in (
            ("store", "TCP 27017"),
            ("setup", "TCP 9092"),
            ("relay", "TCP 9093"),
            ("operator", "TCP 27017"),
            ("publish", "TCP 443"),
        )
    ),
    Broken(network.require_egress, "pod_events: open egress to TCP 6443", gone("NetworkPolicy", "pod-events")),
    Broken(network.require_egress, "adapter of pod-events: open egress to any", gone("NetworkPolicy", "pod-source")),
    Broken(network.require_egress, "setup: open egress to UDP 53", gone("NetworkPolicy", "dns")),
    Broken(network.require_egress, "store: close egress to TCP 9092", opened("store", {"ports": [{"port": 9092}]})),
    Broken(network.require_egress, "store: close egress to any", opened("store", {})),
    Broken(network.require_ingress, "store: open ingress to TCP 8012", gone("NetworkPolicy", "from-knative")),
    Broken(
        network.require_ingress,
        "outside Knative's namespaces reach store",
        opened("from-knative", {"from": [{"podSelector": {}}], "ports": [{"port": 8012}]}, "ingress"),
    ),
    Broken(
        network.require_sender_label,
        "the label twofold.dev/kafka",
        lambda r: service(r, "relay")["metadata"]["labels"].pop("twofold.dev/kafka"),
    ),
    Broken(
        production.require_tokens,
        "admin: AUTH is 'off'",
        lambda r: container(r, "admin")["env"].append({"name": "AUTH", "value": "off"}),
    ),
    Broken(
        production.require_https,
        "publish: networking.knative.dev/http-protocol is None",
        lambda r: service(r, "publish")["metadata"].pop("annotations"),
    ),
    Broken(
        production.require_tls,
        "Deployment operator: KAFKA_SASL_PASSWORD is None",
        lambda r: operator(r)["containers"][0].update(
            env=[found for found in operator(r)["containers"][0]["env"] if "SASL" not in found["name"]]
        ),
    ),
    Broken(
        production.require_tls,
        "store: tls is None",
        lambda r: config_map(r, "mongodb")["data"].update(options="replicaSet=rs0"),
    ),
    Broken(
        production.require_tls,
        "relay: KAFKA_SECURITY_PROTOCOL is 'PLAINTEXT'",
        lambda r: settings(r).update(KAFKA_SECURITY_PROTOCOL="PLAINTEXT"),
    ),
    Broken(
        production.require_tls,
        "pod-events: KAFKA_SASL_PASSWORD is None",
        lambda r: container(r, "pod_events")["env"].remove(env(r, "KAFKA_SASL_PASSWORD", "pod_events")),
    ),
    Broken(production.require_tls, "Service store: secret is None", lambda r: container(r)["volumeMounts"].pop()),
    Broken(production.require_tls, "store: enable is None", lambda r: source(r)["net"].pop("tls")),
    Broken(pods.require_valid_objects, "restartPolice", lambda r: setup(r).update(restartPolice="Never")),
    Broken(pods.require_valid_objects, "find schema", lambda r: the(r, "Job", "setup").update(kind="Jobs")),
    *(
        Broken(pods.require_hardening, f"{name} is", without(context, name))
        for name in (*(sorted(set(pods.HARDENED) - {"privileged"})), "readOnlyRootFilesystem")
    ),
    Broken(
        pods.require_hardening,
        "privileged is True",
        lambda r: setup(r)["containers"][0]["securityContext"].update(privileged=True),
    ),
    Broken(pods.require_hardening, "hostPath must be absent", lambda r: pod(r).update(hostNetwork=True)),
    Broken(
        pods.require_hardening,
        "Service store: mount an emptyDir at /tmp",
        lambda r: container(r)["volumeMounts"].pop(0),
    ),
    Broken(pods.require_hardening, "resources lack", lambda r: container(r)["resources"]["limits"].clear()),
    Broken(pods.require_hardening, "readinessProbe is None", lambda r: container(r).pop("readinessProbe")),
)


@pytest.mark.fault("D4")
@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("broken", SOURCES, ids=str)
def test_a_source_that_could_lose_events_is_reported(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.words in line for line in found), found


@pytest.mark.fault("D1", "D2")
@pytest.mark.dev
@pytest.mark.parametrize("broken", OTHERS, ids=str)
def test_a_broken_manifest_is_reported(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.words in line for line in found), found


@pytest.mark.dev
def test_every_rule_holds(overlays: Overlays, project: Project) -> None:
    assert complaints(list(overlays.values()), project) == []


@pytest.mark.dev
def test_every_rule_has_a_broken_manifest() -> None:
    assert {broken.rule for broken in (*SOURCES, *OTHERS)} == set(RULES)


def members(thing: Any, depth: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each member down to a depth, as its holder and its name."""
    if isinstance(thing, dict) and depth:
        for name, part in thing.items():
            yield thing, name
            yield from members(part, depth - 1)
    elif isinstance(thing, list):
        for part in thing:
            yield from members(part, depth)


@pytest.mark.dev
@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_missing_member_never_ends_the_check(overlays: Overlays, project: Project, overlay: str) -> None:
    judged = [rule for rule in RULES if rule is not pods.require_valid_objects]  # the schemas take long
    rendered = deepcopy(overlays[overlay])
    removed = 0
    for thing in {(thing["apiVersion"], thing["kind"]): thing for thing in rendered.objects}.values():
        for holder, name in list(members(thing.get("spec", {}), 3)):
            part = holder.pop(name)
            for rule in judged:
                list(complaints_of(rule, rendered, project))
            holder[name] = part
            removed += 1
    assert removed > 50


@pytest.mark.dev
class TestRetryBudget:
    """The sum of the delays, by the retry rules of Knative in `dev.kafka_source.rules`."""

    def budget(self, **delivery: Any) -> timedelta:
        return sources.retry_budget({"spec": {"delivery": delivery}})

    def test_linear_delays_add_up(self) -> None:
        assert self.budget(retry=4, backoffPolicy="linear", backoffDelay="PT2S") == timedelta(seconds=2 + 4 + 6 + 8)

    def test_exponential_delays_double(self) -> None:
        assert self.budget(retry=3, backoffPolicy="exponential", backoffDelay="PT1S") == timedelta(seconds=2 + 4 + 8)

    def test_a_delivery_without_retry_has_no_budget(self) -> None:
        assert self.budget(backoffPolicy="linear", backoffDelay="PT1H") == timedelta(0)

    def test_a_budget_beyond_a_year_is_a_year(self) -> None:
        assert self.budget(retry=5000, backoffPolicy="exponential", backoffDelay="PT1S") > timedelta(days=300)
