"""`store` and `dead_letters` take the requests of the real KafkaSource, byte by byte from its socket."""

import re
import socket
from operator import methodcaller
from typing import Any

import pytest

from dev.stack.functions import FunctionProcess
from tests.captured import CAPTURED, Captured
from tests.carried import Request
from tests.helpers import View
from twofold.cloudevents.attributes import build_event, read_headers
from twofold.cloudevents.json_format import payload_of_bytes
from twofold.event.identity import event_id_of

pytestmark = [pytest.mark.guarantee("G4"), pytest.mark.fault("D6")]

STORED = {f"{number:02}" for number in (*range(1, 11), 13, 14)}
"""The numbers of the requests with an event that agrees with its digest."""


def in_todays_names(captured: Captured, *, fits: bool) -> bytes:
    """Return the request with today's names of Twofold's attributes, and with an order.

    An earlier version of Twofold wrote the records of the recorded requests. `fits`: the digest is that of the event.
    """
    head, _, body = captured.request.partition(b"\r\n\r\n")
    head = head.replace(b"ce-digest:", b"ce-twofolddigest:").replace(b"ce-timeassigned:", b"ce-twofoldtimeassigned:")
    if fits:
        attributes, content_type = read_headers(captured.parsed.headers, methodcaller("decode", "latin-1"))
        assigned = attributes.pop("timeassigned", None) is not None
        for name in ("digest", "knativekafkapartition", "knativekafkaoffset"):
            del attributes[name]
        event = build_event(attributes, payload_of_bytes(body, content_type), None, assigned=assigned)
        head = re.sub(b"(?<=ce-twofolddigest: )[0-9a-f]{64}", event.digest.hex().encode(), head)
    return b"%b\r\nce-twofoldorder: 7\r\n\r\n%b" % (head, body)


def answer_of(function: FunctionProcess, request: bytes) -> bytes:
    """Return the status line of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", function.port), timeout=20) as connection:
        connection.sendall(request)
        return connection.makefile("rb").readline()


def offset_of(captured: Captured) -> int:
    return int(captured.headers["ce-knativekafkaoffset"])


def is_in_log(database: Any, captured: Captured) -> bool:
    """Return True if the log has the event, from its place in Kafka. Events of other tests can have the same place."""
    source, given_id = (captured.headers[f"ce-{name}"].decode("latin-1") for name in ("source", "id"))
    place = {"kafka.partition": 3 if captured.name[:2] == "06" else 0, "kafka.offset": offset_of(captured)}
    return database.event_store.find_one(place | {"_id": event_id_of(source, given_id)}) is not None


def kept_of(database: Any, captured: Captured) -> Any:
    """Return the dead letter with the same body and id."""
    return database.dead_letters.find_one(
        {"body": captured.parsed.body, "headers": {"name": "ce-id", "value": captured.headers["ce-id"]}}
    )


def test_store_takes_every_request(flow: View) -> None:
    """It stores what Twofold wrote, and keeps everything else as dead letters with the bytes of the request."""
    store = flow.stack.functions["store"]
    database = flow.database
    for captured in CAPTURED[:18]:
        request = in_todays_names(captured, fits=captured.name[:2] in STORED)
        assert answer_of(store, request) == b"HTTP/1.1 200 OK\r\n", captured.name
    stored = {captured.name[:2] for captured in CAPTURED[:18] if is_in_log(database, captured)}
    assert stored == STORED
    for captured in CAPTURED[:18]:
        if captured.name[:2] in STORED:
            continue
        kept = kept_of(database, captured)
        assert kept is not None, captured.name
        headers = {header["name"]: header["value"] for header in kept["headers"]}
        sent = Request(in_todays_names(captured, fits=False)).headers
        assert headers == {
            name.decode(): value for name, value in sent if name.startswith(b"ce-") or name == b"content-type"
        }


def test_dead_letters_takes_every_request(flow: View) -> None:
    dead_letters = flow.stack.functions["dead_letters"]
    for captured in CAPTURED:
        assert answer_of(dead_letters, captured.request) == b"HTTP/1.1 200 OK\r\n", captured.name
    for captured in CAPTURED[18:]:
        assert kept_of(flow.database, captured)["reason"] == "undelivered"
