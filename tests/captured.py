"""Requests of the real KafkaSource (release 1.23) with their Kafka records: `tests/fixtures/kafka_source_requests`."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from dev.paths import ROOT
from tests.carried import FakeRecord, Request

FOLDER = ROOT / "tests" / "fixtures" / "kafka_source_requests"


@dataclass(frozen=True)
class Captured:
    """A request as the sink's socket got it. A dead letter has no record here."""

    name: str
    request: bytes
    record: FakeRecord | None

    @property
    def parsed(self) -> Request:
        return Request(self.request)

    @property
    def headers(self) -> dict[str, bytes]:
        return {name.decode(): value for name, value in self.parsed.headers}

    def __str__(self) -> str:
        return self.name


def _decoded(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)


def _record(found: dict[str, Any]) -> FakeRecord:
    headers = [(name, _decoded(value)) for name, value in found["headers"]]
    record = FakeRecord(_decoded(found["key"]), _decoded(found["value"]), headers)
    record.topic, record.partition, record.offset = found["topic"], found["partition"], found["offset"]
    record.timestamp = found["timestamp"]
    return record


def _captured(entry: dict[str, Any]) -> Captured:
    record = entry["record"] and _record(entry["record"])
    return Captured(entry["file"].removesuffix(".http"), (FOLDER / entry["file"]).read_bytes(), record)


CAPTURED = [_captured(entry) for entry in json.loads((FOLDER / "index.json").read_text())]
EVENTS = [captured for captured in CAPTURED if captured.record is not None]
DEAD_LETTERS = [captured for captured in CAPTURED if captured.record is None]
