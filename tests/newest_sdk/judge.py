"""Reads and writes CloudEvents with the newest SDK, by JSON lines: `python judge.py` in the environment of the SDK.

A line of the standard input is `{"do": "write" or "read", "form", "event" or "headers" and "body"}`, and the answer is
a line too. Bodies and data are Base64. The file imports only the standard library and the SDK.
"""

import base64
import json
import re
import sys
from datetime import datetime
from typing import Any

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

FORMAT = JSONFormat()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def event_of(given: dict[str, Any]) -> CloudEvent:
    """Return the SDK's event: its data are a JSON value, a text or bytes."""
    attributes = dict(given)
    data = attributes.pop("data", None)
    if "data_base64" in attributes:
        data = _bytes(attributes.pop("data_base64"))
    attributes["time"] = datetime.fromisoformat(attributes["time"])
    return CloudEvent(attributes, data)


def event_json(event: BaseCloudEvent) -> dict[str, Any]:
    """Return the event in the JSON format. Data that are not JSON are bytes."""
    attributes = {name: value for name, value in event.get_attributes().items() if value is not None}
    attributes["time"] = attributes["time"].isoformat()
    data = event.get_data()
    if data is None:
        return attributes
    if re.match(FORMAT.JSON_CONTENT_TYPE_PATTERN, attributes.get("datacontenttype", "application/json")):
        if isinstance(data, bytes):
            return attributes | {"data_base64": _base64(data)}
        return attributes | {"data": data}
    return attributes | {"data_base64": _base64(data.encode() if isinstance(data, str) else data)}


def write(form: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the headers and the body that the SDK writes."""
    event = event_of(given)
    message = http.to_binary(event, FORMAT) if form == "binary" else http.to_structured(event, FORMAT)
    return {"headers": message.headers, "body": _base64(message.body)}


def read(form: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Return the event that the SDK reads from a request, or from a record (`kafka`)."""
    if form != "kafka":
        return event_json(http.from_http(http.HTTPMessage(headers, body), FORMAT))
    encoded = {name: value.encode() for name, value in headers.items()}
    return event_json(kafka.from_kafka(kafka.KafkaMessage(encoded, None, body), FORMAT))


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a line."""
    if asked["do"] == "write":
        return write(asked["form"], asked["event"])
    return read(asked["form"], asked["headers"], _bytes(asked["body"]))


def main() -> None:
    """Answer each line, until the input ends."""
    for line in sys.stdin:
        try:
            result = answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the test shows it
            result = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
