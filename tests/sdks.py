"""CloudEvents' own SDK as a judge: the version of `.venv`, and the newest version in an environment of its own.

Both have the same two methods. Events are in the JSON format, with `time` and without JSON `null` as data: the SDK has
one value for `null` and for no data.
"""

import base64
import json
import subprocess
from collections.abc import Mapping
from typing import Any, Protocol

from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from cloudevents.kafka import KafkaMessage
from cloudevents.kafka import from_binary as from_kafka

from dev.paths import ROOT
from tests.equal_events import encoded_text, kind_of

Json = dict[str, Any]
Message = tuple[dict[str, str], bytes]

NEWEST_PYTHON = ROOT / ".venv-newest-sdk" / "bin" / "python"
"""The interpreter of the newest SDK. `make test` makes this environment."""


class Sdk(Protocol):
    """A version of the SDK."""

    def write(self, form: str, event: Json) -> Message:
        """Return a request in the mode `binary` or `structured`."""

    def read(self, form: str, headers: Mapping[str, str], body: bytes) -> Json:
        """Return the event of a request (`http`), or of a record in binary mode (`kafka`)."""


def with_bytes(event: Json) -> Json:
    """Return the event with the bytes of its data, as an application gives them to an SDK in binary mode."""
    if "data" not in event:
        return event
    content_type = event.get("datacontenttype", "")
    is_json = kind_of(content_type) == "json"
    data = json.dumps(event["data"]).encode() if is_json else encoded_text(event["data"], content_type)
    rest = {name: value for name, value in event.items() if name != "data"}
    return rest | {"data_base64": base64.b64encode(data).decode()}


class PinnedSdk:
    """The SDK of `.venv`. It neither writes nor reads the escapes of the HTTP binding."""

    def write(self, form: str, event: Json) -> Message:
        attributes = dict(event)
        data = attributes.pop("data", None)
        if "data_base64" in attributes:
            data = base64.b64decode(attributes.pop("data_base64"))
        sdk_event = CloudEvent(attributes, data)
        if form == "binary":
            headers, body = to_binary(sdk_event, data_marshaller=lambda data: data)
        else:
            headers, body = to_structured(sdk_event)
        return dict(headers), body or b""

    def read(self, form: str, headers: Mapping[str, str], body: bytes) -> Json:
        if form == "kafka":
            encoded = {name: value.encode() for name, value in headers.items()}
            read = from_kafka(KafkaMessage(encoded, b"", body), data_unmarshaller=lambda data: data)
            attributes = {n: v for n, v in read.get_attributes().items() if n != "partitionkey"}
        else:
            read = from_http(dict(headers), body, data_unmarshaller=lambda data: data)
            attributes = dict(read.get_attributes())
        data = read.get_data()
        if not data:
            return attributes
        if kind_of(attributes.get("datacontenttype", "")) == "json":
            return attributes | {"data": json.loads(data)}
        return attributes | {"data_base64": base64.b64encode(data).decode()}


class NewestSdk:
    """The newest SDK, in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [NEWEST_PYTHON, "-I", ROOT / "tests" / "newest_sdk" / "judge.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **asked: Any) -> Json:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: Json = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    def write(self, form: str, event: Json) -> Message:
        answer = self._ask(do="write", form=form, event=event)
        return answer["headers"], base64.b64decode(answer["body"])

    def read(self, form: str, headers: Mapping[str, str], body: bytes) -> Json:
        return self._ask(do="read", form=form, headers=dict(headers), body=base64.b64encode(body).decode())

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=20)
