"""Rules over Knative's sources: nothing that they lose by default may be left to a default."""

from collections.abc import Iterator
from datetime import timedelta

from pydantic import TypeAdapter

from dev.kafka_source.rules import BackoffPolicy, retries
from dev.manifests.project import Project
from dev.manifests.rendering import Object, Rendered, called

BUDGET = timedelta(hours=24)
"""How long the KafkaSource goes on trying while its sink is away, at least."""

SAID = ("consumerGroup", "consumers", "initialOffset", "ordering", "delivery", "sink", "topics", "bootstrapServers")
DELIVERY = ("retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink")

_DURATION = TypeAdapter(timedelta)


WIRED = (
    ("KafkaSource", "sink", "store"),
    ("KafkaSource", "deadLetterSink", "dead-letters"),
    ("ApiServerSource", "sink", "pod-events"),
)
"""What each kind of source, by which of its sinks, brings events to; `pings_come_often_enough` has the timers."""


def each_sink_has_one_source(rendered: Rendered, _: Project) -> Iterator[str]:
    """Without one nothing arrives, and no other rule has anything to look at; two would send everything twice."""
    for kind, role, name in WIRED:
        bring = [
            found for found in rendered.of(kind) if dict(_sinks(found)).get(role, {}).get("ref", {}).get("name") == name
        ]
        if len(bring) != 1:
            yield f"{len(bring)} objects of kind {kind} have {name} as their {role}, and one must"


def kafka_sources_leave_nothing_to_defaults(rendered: Rendered, _: Project) -> Iterator[str]:
    """Its defaults begin at the end of the topic, with a group of a random name, and give events up."""
    for source in rendered.of("KafkaSource"):
        spec = source["spec"]
        for name in SAID:
            if name not in spec:
                yield f"{called(source)}: spec.{name} is not said"
        for name in DELIVERY:
            if name not in spec.get("delivery", {}):
                yield f"{called(source)}: spec.delivery.{name} is not said"
        if spec.get("initialOffset") != "earliest":
            yield f"{called(source)}: initialOffset is not earliest: what was in the topic before it would be skipped"
        if spec.get("ordering") != "unordered":
            yield f"{called(source)}: ordering is not unordered: one request at a time, and no groups to commit"


def the_retry_budget_outlasts_a_day(rendered: Rendered, _: Project) -> Iterator[str]:
    """By Knative's rules: the sum of the delays, the time-outs not counted."""
    for source in rendered.of("KafkaSource"):
        budget = retry_budget(source)
        if budget < BUDGET:
            yield f"{called(source)}: gives up after {budget}, and its sink may be away for {BUDGET}"


def retry_budget(source: Object) -> timedelta:
    """How long a KafkaSource goes on while its sink refuses at once."""
    delivery = source["spec"].get("delivery", {})
    try:
        delay = _DURATION.validate_python(delivery.get("backoffDelay", timedelta(0)))
        policy = BackoffPolicy(delivery["backoffPolicy"]) if "backoffPolicy" in delivery else None
    except ValueError:  # Knative refuses the source
        return timedelta(0)
    rules = retries(
        retry=delivery.get("retry"),
        policy=policy,
        delay=delay.total_seconds() if delivery else None,
        dead_letters="deadLetterSink" in delivery,
    )
    most = min(rules.retry, _ENOUGH)  # an exponential delay outgrows timedelta
    return timedelta(seconds=min(sum(map(rules.delay_before, range(1, most + 1))), BUDGET.total_seconds() * 365))


_ENOUGH = 1000


def the_topic_outlasts_the_retries(rendered: Rendered, _: Project) -> Iterator[str]:
    """What the topic drops while a sink is away, the source never reads."""
    kept = timedelta(days=float(rendered.data("settings").get("SETUP_TOPIC_RETENTION_DAYS", 0)))
    for source in rendered.of("KafkaSource"):
        if kept <= (budget := retry_budget(source)):
            yield f"{called(source)}: tries for {budget}, and the topic keeps {kept} (SETUP_TOPIC_RETENTION_DAYS)"


def kafka_sources_read_what_is_sent(rendered: Rendered, _: Project) -> Iterator[str]:
    """Topic, servers and group are those of the functions' settings: relay asks for the group's progress."""
    settings = rendered.data("settings")
    for source in rendered.of("KafkaSource"):
        spec = source["spec"]
        for name, has, wanted in (
            ("topics", spec.get("topics"), [settings.get("KAFKA_TOPIC")]),
            ("consumerGroup", spec.get("consumerGroup"), settings.get("KAFKA_CONSUMER_GROUP")),
            ("bootstrapServers", spec.get("bootstrapServers"), settings.get("KAFKA_BOOTSTRAP_SERVERS", "").split(",")),
        ):
            if has != wanted:
                yield f"{called(source)}: {name} is {has}, and the functions' settings say {wanted}"
        if int(spec.get("consumers", 1)) > int(settings.get("SETUP_TOPIC_PARTITIONS", 0)):
            yield f"{called(source)}: more consumers than the topic has partitions"


def kafka_is_reached_as_production_wants(rendered: Rendered, _: Project) -> Iterator[str]:
    """In production: users and TLS on both sides, and a topic that outlives the loss of a broker."""
    if rendered.overlay != "production":
        return
    settings = rendered.data("settings")
    if settings.get("KAFKA_SECURITY_PROTOCOL") != "SASL_SSL":
        yield "ConfigMap settings: KAFKA_SECURITY_PROTOCOL is not SASL_SSL"
    replicas = int(settings.get("SETUP_TOPIC_REPLICATION", 0))
    in_sync = int(settings.get("SETUP_TOPIC_MIN_INSYNC_REPLICAS", 0))
    if replicas < 3 or not 2 <= in_sync < replicas:
        yield f"ConfigMap settings: {in_sync} of {replicas} replicas in sync; at least 2 of 3, and one may be away"
    for source in rendered.of("KafkaSource"):
        net = source["spec"].get("net", {})
        for part in ("sasl", "tls"):
            if net.get(part, {}).get("enable") is not True:
                yield f"{called(source)}: net.{part} is not enabled"


def sinks_are_there_and_wait_long_enough(rendered: Rendered, _: Project) -> Iterator[str]:
    """A sink that isn't there is retried until the budget is gone; one that is cut off by the source is asked twice."""
    for source in _sources(rendered):
        for role, sink in _sinks(source):
            ref = sink.get("ref", {})
            service = rendered.functions.get(ref.get("name", "").replace("-", "_"))
            if service is None or ref.get("kind") != "Service" or not ref["apiVersion"].startswith("serving.knative"):
                yield f"{called(source)}: its {role} {ref.get('name')} is no Knative Service of ours"
                continue
            waits = source["spec"].get("delivery", {}).get("timeout")
            answers = timedelta(seconds=service["spec"]["template"]["spec"].get("timeoutSeconds", 300))
            if waits is not None and _DURATION.validate_python(waits) < answers:
                yield f"{called(source)}: waits {waits} for its {role}, which may take {answers}"
            if waits is not None and _DURATION.validate_python(waits) > 2 * answers:
                yield f"{called(source)}: waits {waits} for its {role}, which is cut off after {answers}"


def pings_come_often_enough(rendered: Rendered, _: Project) -> Iterator[str]:
    """The relay's budget is less than the minute between two runs; and pods are missed until they are listed."""
    woken = {source["spec"]["sink"]["ref"]["name"]: source for source in rendered.of("PingSource")}
    for name in ("relay", "pod-events"):
        if (ping := woken.get(name)) is None or ping["spec"]["schedule"] != "* * * * *":
            yield f"PingSource {name}: {name} is not woken every minute"
    for name, source in woken.items():
        if source["spec"].get("contentType") != "application/json" or "data" not in source["spec"]:
            yield f"PingSource {name}: contentType or data is not said"


def api_server_sources_send_objects(rendered: Rendered, _: Project) -> Iterator[str]:
    """By default they send references, which hold nothing that an event could be made of."""
    for source in rendered.of("ApiServerSource"):
        if source["spec"].get("mode") != "Resource":
            yield f"{called(source)}: mode is not Resource"


def what_is_sent_is_what_is_listed(rendered: Rendered, _: Project) -> Iterator[str]:
    """A pod that is listed and never sent, or the other way round, would have half a life."""
    settings = rendered.data("settings")
    for source in rendered.of("ApiServerSource"):
        spec = source["spec"]
        everywhere = spec.get("namespaceSelector") == {}
        sent_from = "" if everywhere else source["metadata"]["namespace"]
        if sent_from != settings.get("PODS_NAMESPACE") or spec.get("namespaceSelector"):
            yield f"{called(source)}: its namespaces are not PODS_NAMESPACE: {settings.get('PODS_NAMESPACE')!r}"
        for resource in spec["resources"]:
            selector = resource.get("selector", {})
            labels = ",".join(f"{name}={value}" for name, value in selector.get("matchLabels", {}).items())
            if labels != settings.get("PODS_SELECTOR") or selector.keys() - {"matchLabels"}:
                yield f"{called(source)}: its selector is not PODS_SELECTOR: {settings.get('PODS_SELECTOR')!r}"


def _sources(rendered: Rendered) -> list[Object]:
    return [found for kind in ("KafkaSource", "PingSource", "ApiServerSource") for found in rendered.of(kind)]


def _sinks(source: Object) -> Iterator[tuple[str, Object]]:
    yield "sink", source["spec"].get("sink", {})
    if "deadLetterSink" in source["spec"].get("delivery", {}):
        yield "deadLetterSink", source["spec"]["delivery"]["deadLetterSink"]


RULES = (
    each_sink_has_one_source,
    kafka_sources_leave_nothing_to_defaults,
    the_retry_budget_outlasts_a_day,
    the_topic_outlasts_the_retries,
    kafka_sources_read_what_is_sent,
    kafka_is_reached_as_production_wants,
    sinks_are_there_and_wait_long_enough,
    pings_come_often_enough,
    api_server_sources_send_objects,
    what_is_sent_is_what_is_listed,
)
