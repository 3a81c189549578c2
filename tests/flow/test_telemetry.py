"""The telemetry of running functions: at a collector of the test, and in their logs."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dev.process.child import free_port, wait_until
from dev.stack import Options, Stack
from dev.stack.functions import FUNCTIONS, FunctionProcess
from tests.collector import Collector, Seen, collector
from tests.conftest import Spawner
from tests.helpers import View, altered, an_event, delivered, load, plain_record, some_events, view
from twofold.event.model import Event
from twofold.observability.metrics import CONSUMER_LAG, LOG_REGRESSED, METRICS, OLDEST_PENDING, PENDING, UNRESOLVED

WITHIN_S = 30.0
MAY_BE_ZERO = {metric.name for metric in (PENDING, OLDEST_PENDING, UNRESOLVED, LOG_REGRESSED, CONSUMER_LAG)}
"""Metrics that are 0 in normal operation. tests/contract/test_telemetry.py has other values."""
PRODUCER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told() -> Iterator[Collector]:
    """Serve the collector of this module's stack."""
    with collector() as served:
        yield served


@pytest.fixture(scope="module")
def seen(told: Collector, broker_name: str) -> Iterator[View]:
    """Start a stack whose functions send to the collector."""
    settings = {"RELAY_FIRST_LOOK_S": "0.1", **told.environment()}
    with Stack(Options(broker=broker_name, settings=settings)) as stack, view(stack) as of_stack:
        yield of_stack


def spans_of(told: Collector, event: Event) -> dict[str, Seen]:
    """Return the spans of an event, by function."""
    return {span.service: span for span in told.spans if span.attributes["cloudevents.event_id"] == event.id}


def whole_trace(told: Collector, event: Event) -> tuple[Seen, Seen]:
    """Wait for the spans of `publish` and of `store`, and return both."""
    assert wait_until(lambda: len(spans_of(told, event)) == 2, within=WITHIN_S)
    spans = spans_of(told, event)
    return spans["twofold-publish"], spans["twofold-store"]


@pytest.mark.guarantee("G1")
def test_one_trace_covers_publish_kafka_and_store(seen: View, told: Collector) -> None:
    """The record in Kafka carries the span of `publish`, and `store` continues it."""
    event = an_event()
    assert seen.publish(event).status_code == 202
    published, stored = whole_trace(told, event)
    assert published.parent_id == ""
    assert (stored.trace_id, stored.parent_id) == (published.trace_id, published.span_id)
    assert published.attributes["messaging.message.id"] == str(event.event_id)


@pytest.mark.guarantee("G1", "R5")
def test_a_producers_own_trace_covers_both_and_stays_unchanged(seen: View, told: Collector) -> None:
    event = an_event(metadata={"service_name": "/shop", "traceparent": PRODUCER})
    assert seen.publish(event).status_code == 202
    for span in whole_trace(told, event):
        assert f"00-{span.trace_id}-{span.parent_id}-01" == PRODUCER
    for collection in ("events", "event_store"):
        document = seen.document(collection, event)
        assert document is not None
        assert document["metadata"]["traceparent"] == PRODUCER


@pytest.mark.guarantee("G1", "R5")
def test_an_event_without_a_trace_joins_the_trace_of_its_request(seen: View, told: Collector) -> None:
    event = an_event()
    assert seen.publish(event, traceparent=PRODUCER).status_code == 202
    published, stored = whole_trace(told, event)
    assert f"00-{published.trace_id}-{published.parent_id}-01" == PRODUCER
    assert (stored.trace_id, stored.parent_id) == (published.trace_id, published.span_id)


@pytest.mark.guarantee("G10")
def test_every_metric_reaches_the_collector(seen: View, told: Collector) -> None:
    """Send a new event, a duplicate, a conflict and an invalid record, then run the relay."""
    event = an_event()
    for sent in (event, event, altered(event)):
        seen.publish(sent)
    assert seen.arrive([event])
    seen.store(plain_record(b"no event"))
    seen.relay(due=[event])
    names = {metric.name for metric in METRICS}
    assert wait_until(lambda: {point.name for point in told.points} >= names, within=WITHIN_S)
    assert {point.name: point.unit for point in told.points} == {metric.name: metric.unit for metric in METRICS}
    assert {point.name for point in told.points if point.value > 0} >= names - MAY_BE_ZERO


def quiet(told: Collector) -> dict[str, str]:
    """Return the variables of a function that sends nothing before its shutdown."""
    hour = "3600000"
    return told.environment() | {"OTEL_METRIC_EXPORT_INTERVAL": hour, "OTEL_BSP_SCHEDULE_DELAY": hour}


@pytest.mark.guarantee("G1")
async def test_a_function_sends_its_last_telemetry_at_shutdown(flow: View, spawn: Spawner) -> None:
    """This includes the requests that are answered after SIGTERM."""
    with collector() as own:
        function = spawn(
            "publish", **quiet(own), OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100000", OTEL_BSP_MAX_QUEUE_SIZE="100000"
        )
        async with load(function.url, number=8) as sent:
            await sent.has(accepted=50)
            await asyncio.to_thread(function.terminate)
        accepted = {event.id for event in sent.accepted}
        assert own.value("twofold.events.accepted") == len(accepted)
        assert {span.attributes["cloudevents.event_id"] for span in own.spans} >= accepted


@pytest.mark.guarantee("G1", "G7")
async def test_an_unavailable_collector_stops_no_function(flow: View, spawn: Spawner) -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "10"}
    function, events = spawn("publish", **nowhere), some_events(20)
    assert flow.publish_all(events, function.url).status_code == 202
    await asyncio.to_thread(function.terminate)
    assert flow.held("events", events) == {event.event_id for event in events}


def lines(function: FunctionProcess) -> list[dict[str, Any]]:
    """Return the function's log. Every line must be JSON."""
    return [json.loads(line) for line in function.log.read_text().splitlines()]


@pytest.mark.guarantee("R10")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_log_line_of_a_function_and_its_server_is_json(flow: View, spawn: Spawner, name: str) -> None:
    """At debug, a request is a line."""
    function = spawn(name, LOG_LEVEL="DEBUG", GUNICORN_LOG_LEVEL="debug")
    flow.http.post(function.url, content=b"no event", headers={"ce-id": "order-7"})
    function.terminate()
    logged = lines(function)
    assert {line["function"] for line in logged} == {name}
    assert {"gunicorn.error", "uvicorn.error", "twofold.web.function"} <= {line["logger"] for line in logged}
    (request,) = [line for line in logged if line["message"] == "request"]
    assert (request["event_id"], request["http.request.method"]) == ("order-7", "POST")


@pytest.mark.guarantee("R10")
def test_at_info_a_dead_letter_is_a_line_and_an_event_is_not(flow: View, spawn: Spawner) -> None:
    function = spawn("store", LOG_LEVEL="INFO")
    for event in some_events(3):
        flow.store(delivered(event), function.url)
    flow.store(plain_record(b"no event", offset=12), function.url)
    function.terminate()
    (dead_letter,) = [line for line in lines(function) if line["message"] != "ready"]
    assert (dead_letter["level"], dead_letter["message"], dead_letter["reason"]) == (
        "warning",
        "dead letter",
        "malformed",
    )
    assert (dead_letter["event_id"], dead_letter["offset"]) == ("partition:0/offset:12", 12)
