"""Sources that would lose events: each is found out."""

import pytest

from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS
from dev.manifests.rules_sources import (
    DELIVERY,
    SAID,
    api_server_sources_send_objects,
    each_sink_has_one_source,
    kafka_is_reached_as_production_wants,
    kafka_sources_leave_nothing_to_defaults,
    kafka_sources_read_what_is_sent,
    pings_come_often_enough,
    sinks_are_there_and_wait_long_enough,
    the_retry_budget_outlasts_a_day,
    the_topic_outlasts_the_retries,
    what_is_sent_is_what_is_listed,
)
from tests.manifests.breaking import (
    Broken,
    Overlays,
    delivery,
    gone,
    list_of,
    remove,
    service,
    settings,
    source,
    the,
    without,
)

pytestmark = pytest.mark.guarantee("G1")

BROKEN = (
    *(
        Broken(
            each_sink_has_one_source,
            f"no {kind} in {overlay}",
            gone(kind, name),
            f"0 objects of kind {kind}",
            overlay,
        )
        for kind, name in (("KafkaSource", "store"), ("ApiServerSource", "pod-events"))
        for overlay in OVERLAYS
    ),
    Broken(
        each_sink_has_one_source,
        "two KafkaSources",
        lambda r: list_of(r).append(the(r, "KafkaSource", "store")),
        "2 objects of kind KafkaSource have store as their sink",
    ),
    Broken(
        each_sink_has_one_source,
        "letters for another",
        lambda r: delivery(r)["deadLetterSink"]["ref"].update(name="store"),
        "0 objects of kind KafkaSource have dead-letters as their deadLetterSink",
    ),
    *(
        Broken(
            kafka_sources_leave_nothing_to_defaults,
            f"no {name}",
            without(source, name),
            f"spec.{name} is not said",
        )
        for name in SAID
    ),
    *(
        Broken(
            kafka_sources_leave_nothing_to_defaults,
            f"no delivery.{name}",
            without(delivery, name),
            f"spec.delivery.{name} is not said",
        )
        for name in DELIVERY
    ),
    Broken(
        kafka_sources_leave_nothing_to_defaults,
        "from the end of the topic",
        lambda r: source(r).update(initialOffset="latest"),
        "is not earliest",
    ),
    Broken(
        kafka_sources_leave_nothing_to_defaults,
        "ordered",
        lambda r: source(r).update(ordering="ordered"),
        "is not unordered",
    ),
    Broken(
        the_retry_budget_outlasts_a_day,
        "too few retries",
        lambda r: delivery(r).update(retry=400),
        "gives up after 22:16:40",
    ),
    Broken(
        the_retry_budget_outlasts_a_day,
        "delays that don't grow enough",
        lambda r: delivery(r).update(backoffDelay="PT0.5S"),
        "gives up after 14:05:37.5",
    ),
    Broken(
        the_retry_budget_outlasts_a_day,
        "a policy that isn't there",
        lambda r: delivery(r).update(backoffPolicy="quadratic"),
        "gives up after 0:00:00",
    ),
    Broken(
        the_retry_budget_outlasts_a_day,
        "no retries",
        lambda r: delivery(r).pop("retry"),
        "gives up after 0:00:00",
    ),
    Broken(
        the_retry_budget_outlasts_a_day,
        "Knative's default",
        lambda r: source(r).pop("delivery"),
        "gives up after 0:10:13.8",
    ),
    Broken(
        the_topic_outlasts_the_retries,
        "a topic that forgets within a day",
        lambda r: settings(r).update(SETUP_TOPIC_RETENTION_DAYS="1"),
        "and the topic keeps 1 day",
    ),
    Broken(
        kafka_sources_read_what_is_sent,
        "another topic",
        lambda r: source(r).update(topics=["events"]),
        "topics is",
    ),
    Broken(
        kafka_sources_read_what_is_sent,
        "another group",
        lambda r: source(r).update(consumerGroup="store"),
        "consumerGroup is",
    ),
    Broken(
        kafka_sources_read_what_is_sent,
        "other servers",
        lambda r: source(r)["bootstrapServers"].pop(),
        "bootstrapServers is",
    ),
    Broken(
        kafka_sources_read_what_is_sent,
        "idle consumers",
        lambda r: source(r).update(consumers=13),
        "more consumers",
    ),
    Broken(
        kafka_is_reached_as_production_wants,
        "in the clear",
        lambda r: settings(r).update(KAFKA_SECURITY_PROTOCOL="PLAINTEXT"),
        "not SASL_SSL",
    ),
    Broken(
        kafka_is_reached_as_production_wants,
        "a single replica",
        lambda r: settings(r).pop("SETUP_TOPIC_REPLICATION"),
        "of 0 replicas",
    ),
    Broken(
        kafka_is_reached_as_production_wants,
        "no replica may be away",
        lambda r: settings(r).update(SETUP_TOPIC_MIN_INSYNC_REPLICAS="3"),
        "3 of 3 replicas",
    ),
    Broken(
        kafka_is_reached_as_production_wants,
        "a source without TLS",
        lambda r: source(r)["net"].pop("tls"),
        "net.tls",
    ),
    Broken(
        sinks_are_there_and_wait_long_enough,
        "a sink that isn't there",
        lambda r: source(r)["sink"]["ref"].update(name="shop"),
        "its sink shop",
    ),
    Broken(
        sinks_are_there_and_wait_long_enough,
        "a dead-letter sink that isn't there",
        lambda r: list_of(r).remove(service(r, "dead_letters")),
        "its deadLetterSink",
    ),
    Broken(
        sinks_are_there_and_wait_long_enough,
        "a short wait",
        lambda r: delivery(r).update(timeout="PT5S"),
        "waits PT5S",
    ),
    Broken(
        sinks_are_there_and_wait_long_enough,
        "a wait for a sink that is long gone",
        lambda r: delivery(r).update(timeout="PT600S"),
        "which is cut off after",
    ),
    Broken(
        pings_come_often_enough,
        "once an hour",
        lambda r: the(r, "PingSource", "relay")["spec"].update(schedule="0 * * * *"),
        "every minute",
    ),
    Broken(pings_come_often_enough, "never", lambda r: remove(r, "PingSource", "relay"), "every minute"),
    Broken(pings_come_often_enough, "no listing", lambda r: remove(r, "PingSource", "pod-events"), "every minute"),
    Broken(
        api_server_sources_send_objects,
        "references",
        lambda r: the(r, "ApiServerSource", "pod-events")["spec"].pop("mode"),
        "mode is not Resource",
    ),
    Broken(
        what_is_sent_is_what_is_listed,
        "another selector",
        lambda r: settings(r).update(PODS_SELECTOR="app=shop"),
        "its selector is not",
    ),
    Broken(
        what_is_sent_is_what_is_listed,
        "nothing to watch",
        lambda r: source(r, "ApiServerSource").pop("resources"),
        "lacks a member",
    ),
    Broken(
        what_is_sent_is_what_is_listed,
        "no selector",
        lambda r: source(r, "ApiServerSource")["resources"][0].pop("selector"),
        "its selector is not",
    ),
    Broken(
        what_is_sent_is_what_is_listed,
        "a selector that can't be compared",
        lambda r: source(r, "ApiServerSource")["resources"][0]["selector"].update(
            matchExpressions=[{"key": "app", "operator": "Exists"}]
        ),
        "its selector is not",
    ),
    Broken(
        what_is_sent_is_what_is_listed,
        "one namespace",
        lambda r: the(r, "ApiServerSource", "pod-events")["spec"].pop("namespaceSelector"),
        "its namespaces are not PODS_NAMESPACE",
    ),
)


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_it_is_found_out(broken: Broken, overlays: Overlays, project: Project) -> None:
    found = broken.complaints(overlays, project)
    assert any(broken.says in line for line in found), found
