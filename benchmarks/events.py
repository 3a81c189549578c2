"""Ready-made requests in files: making requests must not take time from the measured functions."""

import functools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from dev.load.events import BATCH_TYPE
from dev.servers.issuer import token
from twofold.cloudevents.encode import encode_http, encode_kafka
from twofold.event.model import Event
from twofold.write.order import PublicationOrder

PAYLOAD_BYTES = 512
BATCH = 100
_HOST = "127.0.0.1"
_PARTITIONS = 4


@dataclass(frozen=True)
class Feed:
    """The requests for one kind of function: for the warm-up, and for the measured run."""

    warm_up: Path
    measured: Path


@dataclass(frozen=True)
class Feeds:
    """The requests of a benchmark. Every run sends the same events, to empty collections."""

    store: Feed
    publish: Feed
    batch: Feed
    ids: frozenset[str]
    """The ids of the events."""

    @classmethod
    def write(cls, folder: Path, measured: int, warm_up: int) -> "Feeds":
        """Make that many distinct events, and write their requests to `folder`, each behind its length in 8 digits."""
        ids: list[str] = []
        for part, count in (("measured", measured), ("warm_up", warm_up)):
            made = list(events(count, seed=part))
            ids += [str(event.event_id) for event in made]
            _write(folder / f"store-{part}", (delivery(event, offset) for offset, event in enumerate(made)))
            _write(folder / f"publish-{part}", (single(event) for event in made))
            _write(folder / f"batch-{part}", (batch(made[at : at + BATCH]) for at in range(0, count, BATCH)))
        names = ("store", "publish", "batch")
        feeds = {name: Feed(folder / f"{name}-warm_up", folder / f"{name}-measured") for name in names}
        return cls(**feeds, ids=frozenset(ids))


def events(count: int, seed: str) -> Iterator[Event]:
    """Yield distinct orders with payloads of 512 bytes. The seed decides the orders."""
    chance = random.Random(seed)
    begin, publication = datetime(2026, 1, 1, tzinfo=UTC), PublicationOrder()
    for number in range(count):
        order = f"order-{chance.randrange(10**8):08d}"
        yield Event.of(
            id=str(UUID(int=chance.getrandbits(128), version=4)),
            event_type="shop.order.placed",
            timestamp=begin + timedelta(milliseconds=17 * number),
            aggregate_id=order,
            metadata={"service_name": "/shop/checkout", "correlation_id": f"{chance.getrandbits(128):032x}"},
            payload=_payload(order, chance),
            order=publication.next(begin + timedelta(milliseconds=17 * number)),
        )


def _payload(order: str, chance: random.Random) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "order": order,
        "customer": f"customer-{chance.randrange(10**6):06d}",
        "currency": "EUR",
        "total": chance.randrange(100, 99_999) / 100,
        "express": chance.random() < 0.5,
        "lines": [{"sku": f"sku-{chance.randrange(10**6):06d}", "quantity": chance.randrange(1, 9)} for _ in range(2)],
        "note": "",
    }
    payload["note"] = "n" * (PAYLOAD_BYTES - len(_compact(payload)))
    return payload


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def delivery(event: Event, offset: int) -> bytes:
    """Return the request in which KafkaSource delivers `event` to `store`, with digest, partition and offset."""
    record = encode_kafka(event)
    headers = [(name.replace("ce_", "ce-"), value.decode("latin-1")) for name, value in record.headers]
    headers.append(("ce-knativekafkapartition", str(offset % _PARTITIONS)))
    headers.append(("ce-knativekafkaoffset", str(offset // _PARTITIONS)))
    return _post([("prefer", "reply"), ("user-agent", "Vert.x-WebClient/4.5.21"), *headers], record.value)


def single(event: Event) -> bytes:
    """Return the request in which a producer publishes `event`: HTTP binary mode."""
    headers, body = encode_http(event)
    return _post([_bearer(), *headers.items()], body)


def batch(members: Iterable[Event]) -> bytes:
    """Return the request in which a producer publishes several events at once."""
    return _post([_bearer(), ("content-type", BATCH_TYPE)], b"[%b]" % b",".join(map(_structured, members)))


@functools.cache
def _bearer() -> tuple[str, str]:
    return "authorization", f"Bearer {token()}"


def _structured(event: Event) -> bytes:
    headers, body = encode_http(event)
    attributes = {name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")}
    return b'%b,"data":%b}' % (_compact(attributes)[:-1], body)


def _post(headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    lines = ["POST / HTTP/1.1", f"host: {_HOST}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode("latin-1") + body


def _write(path: Path, requests: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%08d" % len(request))
            file.write(request)


def read(path: Path) -> list[bytes]:
    """Return the requests of a file that `Feeds.write` made."""
    requests = []
    with path.open("rb") as file:
        while length := file.read(8):
            requests.append(file.read(int(length)))
    return requests
