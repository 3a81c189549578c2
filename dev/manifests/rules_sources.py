"""Rules for Knative sources: a source loses no event and never depends on a default that loses events."""

from collections.abc import Iterator
from datetime import timedelta

from pydantic import TypeAdapter

from dev.kafka_source.rules import BackoffPolicy, retries
from dev.manifests.project import Project
from dev.manifests.rendering import SERVICE, Object, Rendered, called, differences

BUDGET = timedelta(hours=24)
"""The shortest time for which a KafkaSource must retry while its sink is unavailable."""

DELIVERY = ("retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink")
"""The members that `delivery` must state: by default a KafkaSource stops retrying after minutes."""

KEYS = {"kafkasources.sources.knative.dev/key-type": "byte-array"}
"""The label that makes keys Base64. Without it, the data plane throws on a key with a control character."""

SINKS = (
    ("KafkaSource", "sink", "store"),
    ("KafkaSource", "deadLetterSink", "dead-letters"),
    ("ApiServerSource", "sink", "pod-events"),
    ("PingSource", "sink", "relay"),
    ("PingSource", "sink", "pod-events"),
)
"""Kind of source, kind of sink, name of the Service."""

_DURATION = TypeAdapter(timedelta)
_MOST_RETRIES = 1000  # an exponential delay outgrows timedelta


def require_sinks(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require a single source for every entry of `SINKS`. It waits for the timeout of the function, twice at most."""
    for kind, role, name in SINKS:
        ref = {"apiVersion": SERVICE, "kind": "Service", "name": name}
        specs = [source["spec"] for source in rendered.of(kind)]
        specs = [spec for spec in specs if spec.get("delivery", {}).get(role, spec.get(role)) == {"ref": ref}]
        if len(specs) != 1:
            yield f"{len(specs)} objects of kind {kind} have the Service {name} as their {role}: there must be 1"
        for timeout in [spec["delivery"]["timeout"] for spec in specs if "timeout" in spec.get("delivery", {})]:
            service = rendered.functions[name.replace("-", "_")]["spec"]["template"]["spec"]
            answers = timedelta(seconds=service["timeoutSeconds"])
            if not answers <= _DURATION.validate_python(timeout) <= 2 * answers:
                yield f"{kind}: delivery.timeout is {timeout}, and Service {name} ends after {answers}"


def require_delivery(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require KafkaSources that read the whole topic of the settings, and send several requests at once.

    The settings name the consumer group too: relay reads the progress of this group.
    """
    settings = rendered.data("settings")
    wanted = {
        "initialOffset": "earliest",
        "ordering": "unordered",
        "topics": [settings["KAFKA_TOPIC"]],
        "consumerGroup": settings["KAFKA_CONSUMER_GROUP"],
        "bootstrapServers": settings["KAFKA_BOOTSTRAP_SERVERS"].split(","),
    }
    for source in rendered.of("KafkaSource"):
        yield from differences(source, source["metadata"].get("labels", {}), KEYS)
        yield from differences(source, source["spec"], wanted)
        for name in sorted(set(DELIVERY) - source["spec"].get("delivery", {}).keys()):
            yield f"{called(source)}: delivery.{name} is missing"
        if int(source["spec"]["consumers"]) > int(settings["SETUP_TOPIC_PARTITIONS"]):
            yield f"{called(source)}: consumers is more than SETUP_TOPIC_PARTITIONS"


def require_retries(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require retries for `BUDGET` at least, and a topic that keeps records for longer than all retries take."""
    kept = timedelta(days=float(rendered.data("settings").get("SETUP_TOPIC_RETENTION_DAYS", 0)))
    for source in rendered.of("KafkaSource"):
        budget = retry_budget(source)
        if budget < BUDGET:
            yield f"{called(source)}: stops retrying after {budget}, and must retry for {BUDGET}"
        if kept <= budget:
            yield f"{called(source)}: retries for {budget}, and SETUP_TOPIC_RETENTION_DAYS keeps records for {kept}"


def retry_budget(source: Object) -> timedelta:
    """Return the time until a KafkaSource stops retrying a sink that refuses at once: the sum of the delays.

    A source that Knative would refuse has no budget.
    """
    delivery = source["spec"].get("delivery", {})
    try:
        delay = _DURATION.validate_python(delivery.get("backoffDelay", timedelta(0)))
        policy = BackoffPolicy(delivery["backoffPolicy"]) if "backoffPolicy" in delivery else None
    except ValueError:
        return timedelta(0)
    rules = retries(
        retry=delivery.get("retry"),
        policy=policy,
        delay=delay.total_seconds() if delivery else None,
        dead_letters="deadLetterSink" in delivery,
    )
    delays = map(rules.delay_before, range(1, min(rules.retry, _MOST_RETRIES) + 1))
    return timedelta(seconds=min(sum(delays), timedelta(days=365).total_seconds()))


def require_timers(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require a run every minute: relay and the listing of pods take less than a minute."""
    for source in rendered.of("PingSource"):
        yield from differences(source, source["spec"], {"schedule": "* * * * *", "contentType": "application/json"})


def require_pods(rendered: Rendered, _: Project) -> Iterator[str]:
    """Require whole objects, from the namespaces and with the labels that the function pod_events lists."""
    settings = rendered.data("settings")
    for source in rendered.of("ApiServerSource"):
        spec = source["spec"]
        yield from differences(source, spec, {"mode": "Resource"})
        sent_from = "" if spec.get("namespaceSelector") == {} else source["metadata"]["namespace"]
        if sent_from != settings["PODS_NAMESPACE"] or spec.get("namespaceSelector"):
            yield f"{called(source)}: its namespaces are not PODS_NAMESPACE: {settings['PODS_NAMESPACE']!r}"
        for resource in spec["resources"]:
            selector = resource.get("selector", {})
            labels = ",".join(f"{name}={value}" for name, value in selector.get("matchLabels", {}).items())
            if labels != settings["PODS_SELECTOR"] or selector.keys() - {"matchLabels"}:
                yield f"{called(source)}: its selector is not PODS_SELECTOR: {settings['PODS_SELECTOR']!r}"
