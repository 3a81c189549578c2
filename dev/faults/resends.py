"""The records that a topic got since a moment, counted for each event."""

from collections import Counter
from typing import Self

from kafka import KafkaConsumer, TopicPartition

_NOT_COUNTED = {"ce_redriveof", "ce_marker", "marker"}
"""Operators redrive records, and poison is a record of its own."""
_IDENTITY = ("ce_id", "ce_source", "ce_twofolddigest")


class TopicTail:
    """Reads a topic from its present end on."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap)
        numbers = self._consumer.partitions_for_topic(topic) or ()
        self._partitions = [TopicPartition(topic, number) for number in numbers]
        self._consumer.assign(self._partitions)
        for partition, end in self._consumer.end_offsets(self._partitions).items():
            self._consumer.seek(partition, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def copies(self) -> Counter[str]:
        """Return the number of records of each event until now."""
        ends = self._consumer.end_offsets(self._partitions)
        counted: Counter[str] = Counter()
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            for records in self._consumer.poll(timeout_ms=200).values():
                for headers in (dict(record.headers) for record in records):
                    if not _NOT_COUNTED & headers.keys():
                        counted[b" ".join(headers.get(name) or b"" for name in _IDENTITY).decode("latin-1")] += 1
        return counted
