"""Envoy's limit of 100 headers between the KafkaSource of the stack and its sinks."""

import pytest
from kafka import KafkaProducer

from dev.process.child import wait_until
from tests.helpers import ARRIVES_WITHIN_S, View, an_event
from twofold.cloudevents.encode import MAX_OTHER_ATTRIBUTES, encode_kafka

pytestmark = [pytest.mark.guarantee("G1", "G4"), pytest.mark.fault("B1")]


def test_an_event_with_many_extensions_passes_the_gateway(flow: View) -> None:
    extensions = {f"x{index}": "1" for index in range(MAX_OTHER_ATTRIBUTES - 5)}
    event = an_event(metadata={"service_name": "/shop", "extensions": extensions})
    assert flow.publish(event).status_code == 202
    assert wait_until(lambda: flow.document("event_store", event) is not None, within=ARRIVES_WITHIN_S)


def test_a_record_that_needs_more_headers_is_lost_before_store_and_dead_letters(flow: View) -> None:
    """`publish` must not accept such an event. Here another program writes the record."""
    many, next_ = an_event(), an_event()
    lost = f"'{many.id}'"
    producer = KafkaProducer(bootstrap_servers=flow.stack.kafka, enable_idempotence=False)
    for event, more in ((many, 95), (next_, 0)):
        record = encode_kafka(event)
        headers = [*record.headers, *((f"ce_x{index}", b"1") for index in range(more))]
        producer.send(flow.stack.topic, record.value, record.key, headers)
    producer.flush(20)
    producer.close(5)
    log = flow.stack.logs / "kafka_source.log"
    assert wait_until(lambda: lost in log.read_text(), within=ARRIVES_WITHIN_S)
    (line,) = [line for line in log.read_text().splitlines() if lost in line]
    assert "LOST" in line
    assert line.count("status 431") == 2
    assert wait_until(lambda: flow.document("event_store", next_) is not None, within=ARRIVES_WITHIN_S)
    assert flow.document("event_store", many) is None
    assert flow.database.dead_letters.count_documents({"event_id": many.event_id}) == 0
