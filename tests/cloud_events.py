"""The fixtures of CloudEvents, and an encoder of requests that is independent of `twofold`. Pure, except for the files.

A fixture has the request of a producer as it stands on the wire, and the event in the JSON format that a decoder must
read from it. `docs/cloudevents.md` describes the events that Twofold takes.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.equal_events import attribute_text, encoded_text, kind_of

Json = dict[str, Any]
Raw = list[tuple[bytes, bytes]]
Request = tuple[Raw, bytes]

FOLDER = Path(__file__).parent / "fixtures" / "cloud_events"
MODES = ("binary", "structured", "batch", "kafka-binary", "kafka-structured")

_ESCAPED = re.compile(r'[^!-~]|["%]')
"""The characters that the HTTP binding percent-encodes (3.1.3.2)."""

_HEADER_TYPE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@dataclass(frozen=True)
class Fixture:
    """A request of a producer, and its events."""

    name: str
    origin: str
    """The document that has an example of this shape. The values are our own."""
    mode: str
    headers: Mapping[str, str]
    body: bytes
    events: tuple[Json, ...]
    duplicate_of: str | None
    """The fixture with the same event before a retry. The hops between have changed this request."""

    @classmethod
    def of(cls, path: Path) -> "Fixture":
        """Read a file."""
        content = json.loads(path.read_text())
        body = content["body"].encode() if "body" in content else base64.b64decode(content["body_base64"])
        events = tuple(content["events"] if "events" in content else [content["event"]])
        assert content["name"] == path.stem
        assert content["mode"] in MODES
        again = content.get("duplicate_of")
        return cls(path.stem, content["origin"], content["mode"], content["headers"], body, events, again)

    @property
    def request(self) -> Request:
        """The headers and the body, as the fixture has them."""
        return [(name.lower().encode(), value.encode()) for name, value in self.headers.items()], self.body

    @property
    def is_kafka(self) -> bool:
        """True for a record of Kafka. A KafkaSource carries it to `publish`."""
        return self.mode.startswith("kafka")


FIXTURES = sorted(map(Fixture.of, sorted(FOLDER.rglob("*.json"))), key=lambda fixture: fixture.duplicate_of is not None)
"""All fixtures. A retry stands behind its first request."""


def percent_encoded(value: str) -> str:
    """Return an attribute as the value of an HTTP header."""
    return _ESCAPED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), value)


def binary(event: Mapping[str, Any]) -> Request | None:
    """Return the request in binary mode. None: binary mode cannot carry this event.

    Bytes without a content type would be JSON there, and a CloudEvents type would be another mode.
    """
    attributes = {name: attribute_text(value) for name, value in event.items() if value is not None}
    data_base64, _ = attributes.pop("data_base64", None), attributes.pop("data", None)
    content_type = attributes.pop("datacontenttype", None)
    headers = [(f"ce-{name}".encode(), percent_encoded(value).encode()) for name, value in attributes.items()]
    if content_type is not None:
        if content_type.startswith("application/cloudevents") or not _HEADER_TYPE.fullmatch(content_type):
            return None
        headers.append((b"content-type", content_type.encode()))
    if data_base64 is not None:
        return None if content_type is None else (headers, base64.b64decode(data_base64))
    if "data" not in event or (event["data"] is None and "data_base64" in event):
        return headers, b""
    if kind_of(content_type or "") == "json":
        return headers, json.dumps(event["data"], ensure_ascii=False).encode()
    return headers, encoded_text(event["data"], content_type or "")


def structured(event: Mapping[str, Any]) -> Request:
    """Return the request in structured mode."""
    body = json.dumps(dict(event), ensure_ascii=False)
    return [(b"content-type", b"application/cloudevents+json; charset=utf-8")], body.encode()


def batch(events: Sequence[Mapping[str, Any]]) -> Request:
    """Return the request with a batch."""
    body = json.dumps([*events], ensure_ascii=False)
    return [(b"content-type", b"application/cloudevents-batch+json")], body.encode()


def renamed(event: Mapping[str, Any], suffix: str) -> Json:
    """Return the event under another `id`."""
    return {**event, "id": f"{event['id']}-{suffix}"}
