"""The same queries with the same answers, on 10,000 events and on 1,000,000 events."""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from statistics import median
from typing import Any
from uuid import UUID

import httpx
from bson.timestamp import Timestamp
from pymongo import MongoClient, WriteConcern

from benchmarks.arena import NotBelievable
from dev.database import CODEC, Document
from dev.process.child import free_port
from dev.servers.issuer import token
from dev.stack import Stack
from dev.stack.functions import FunctionProcess
from dev.stack.running import Steps
from twofold.event.time import EARLIEST
from twofold.settings import Settings
from twofold.setup.run import set_up

SMALL, LARGE = 10_000, 1_000_000
ASKED = 240
"""Events that the queries find: both collections have them, alone in their hour."""
ROUNDS = 3
REQUESTS = 200
"""Requests of a kind in a round to a collection."""
WARM_UP = 20
BATCH = 5_000

_HOUR = datetime(2026, 6, 15, 12, tzinfo=UTC)
_MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Scaling:
    """The 99th percentiles of each kind of query, in ms: of the small collection, and of the large collection."""

    p99_ms: dict[str, tuple[float, float]]

    @property
    def worst(self) -> float:
        """The greatest ratio of the two percentiles."""
        return max(large / small for small, large in self.p99_ms.values())

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        kinds = {
            kind: {"p99_ms_small": round(small, 2), "p99_ms_large": round(large, 2), "ratio": round(large / small, 3)}
            for kind, (small, large) in self.p99_ms.items()
        }
        return {"query_scaling": round(self.worst, 3), "query_scaling_kinds": kinds}


def measure(stack: Stack, say: Steps) -> Scaling:
    """Fill two databases, and query both in turns. Raises `NotBelievable` if the answers differ."""
    asked = list(_asked())
    with _serving(stack, SMALL, asked, say) as small, _serving(stack, LARGE, asked, say) as large:
        kinds = _kinds(asked)
        rounds: list[dict[str, tuple[float, float]]] = []
        for turn in range(1, ROUNDS + 1):
            rounds.append({})
            for kind, path in kinds.items():
                say(f"round {turn} of {ROUNDS}: {kind}")
                rounds[-1][kind] = _compare(small, large, kind, path)
    return Scaling({kind: (_median(rounds, kind, 0), _median(rounds, kind, 1)) for kind in kinds})


def _median(rounds: list[dict[str, tuple[float, float]]], kind: str, which: int) -> float:
    return median(each[kind][which] for each in rounds)


def _kinds(asked: list[Document]) -> dict[str, str]:
    """Return the paths by kind of query. Except for `newest`, both databases give the same answer."""
    one, hour = asked[0], "from=2026-06-15T12:00:00Z&to=2026-06-15T13:00:00Z"
    metadata = one["metadata"]
    return {
        "one event": f"/events/{one['_id']}",
        "newest": "/events?limit=20",
        "type": "/events?type=asked.a&limit=20",
        "types": "/events?type=asked.a&type=asked.b&order=oldest&limit=20",
        "aggregate": f"/events?aggregate={one['aggregate_id']}&order=oldest",
        "correlation": f"/events?correlation={metadata['correlation_id']}",
        "user": f"/events?user={metadata['user_id']}&limit=20",
        "service": "/events?service=/asked&limit=20",
        "time": f"/events?{hour}&limit=20",
        "combination": f"/events?{hour}&type=asked.a&service=/asked&user={metadata['user_id']}&limit=20",
        "text": f"/events?{hour}&text=needle&limit=20",
        "statistics": f"/statistics?{hour}",
        "statistics of a user": f"/statistics?{hour}&user={metadata['user_id']}",
        "all types": "/types",
    }


def _compare(small: httpx.Client, large: httpx.Client, kind: str, path: str) -> tuple[float, float]:
    """Return the 99th percentiles, in ms. The requests alternate, so a disturbance hits both databases."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + REQUESTS):
        answers = []
        for client, taken in zip((small, large), times, strict=True):
            began = time.perf_counter()
            answers.append(client.get(path))
            if number >= WARM_UP:
                taken.append((time.perf_counter() - began) * 1000)
        found = [_found(answer) for answer in answers]
        if found[0] != found[1] and kind != "newest":
            raise NotBelievable(
                f"{kind}: {str(found[0])[:200]} of {SMALL:,}, {str(found[1])[:200]} of {LARGE:,} events"
            )
    return _p99(times[0]), _p99(times[1])


def _found(answer: httpx.Response) -> Any:
    if answer.status_code != httpx.codes.OK:
        raise NotBelievable(f"{answer.request.url} was answered {answer.status_code}: {answer.text[:300]}")
    content = answer.json()
    if content.get("cut") or not (
        content.get("events", True) and content.get("types", True) and content.get("total", True)
    ):
        raise NotBelievable(f"{answer.request.url} found no event, or not every event: {answer.text[:300]}")
    return [event["event_id"] for event in content["events"]] if "events" in content else content


def _p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]


@contextmanager
def _serving(stack: Stack, number: int, asked: list[Document], say: Steps) -> Iterator[httpx.Client]:
    """Start `query` on a new database with that many events, and open a client."""
    name = f"{stack.database}_{number}"
    environment = stack.function_environment("query") | {"MONGODB_DATABASE": name}
    say(f"inserting {number:,} events")
    _fill(stack, name, number, asked)
    say(f"building the indexes of {number:,} events")
    asyncio.run(set_up(Settings.model_validate({key.lower(): value for key, value in environment.items()}), {}))
    function = FunctionProcess("query", free_port(), environment, logs=stack.logs)
    function.start()
    headers = {"authorization": f"Bearer {token()}"}
    try:
        with httpx.Client(base_url=function.url, headers=headers, timeout=30.0, trust_env=False) as client:
            yield client
    finally:
        function.terminate()


def _fill(stack: Stack, name: str, number: int, asked: list[Document]) -> None:
    """Insert directly, with the asked events at random positions. The indexes come afterwards."""
    chance = random.Random(number)
    with MongoClient[Document](stack.mongodb_uri) as client:
        events = client.get_database(name, codec_options=CODEC, write_concern=WriteConcern(1))["events"]
        others, rest = _others(number - len(asked), chance), list(asked)
        share = -(-len(asked) // (number // BATCH))  # asked events per batch, rounded up
        while batch := list(islice(others, BATCH)):
            batch += [rest.pop() for _ in range(min(share, len(rest)))]
            chance.shuffle(batch)
            events.insert_many(batch, ordered=False)


def _asked() -> Iterator[Document]:
    """Yield 240 events in an hour: 12 aggregates, 12 correlations, 4 users, 2 types and a single service."""
    chance = random.Random("asked")
    for number in range(ASKED):
        document = _document(chance, _HOUR + timedelta(seconds=15 * number), f"asked.{'ab'[number % 2]}")
        document["aggregate_id"] = f"asked-{number % 12}"
        document["metadata"] = {
            "service_name": "/asked",
            "correlation_id": f"asked-{number % 12}",
            "user_id": f"asked-{number % 4}",
        }
        document["payload"]["note"] = "a needle, in the hay" if number % 4 == 0 else "hay"
        yield document


def _others(number: int, chance: random.Random) -> Iterator[Document]:
    """Yield events of a month except that hour: 20 types, 10 services, many aggregates, correlations and users."""
    for _ in range(number):
        at = _HOUR - timedelta(days=15) + _MONTH * chance.random()
        if _HOUR <= at < _HOUR + timedelta(hours=1):
            at += timedelta(hours=2)
        document = _document(chance, at.replace(microsecond=at.microsecond // 1000 * 1000), f"t.{chance.randrange(20)}")
        document["aggregate_id"] = f"aggregate-{chance.randrange(number // 10 + 1)}"
        document["metadata"] = {
            "service_name": f"/service-{chance.randrange(10)}",
            "correlation_id": f"correlation-{chance.randrange(number // 5 + 1)}",
            "user_id": f"user-{chance.randrange(number // 50 + 1)}",
        }
        yield document


def _document(chance: random.Random, at: datetime, event_type: str) -> Document:
    return {
        "_id": UUID(int=chance.getrandbits(128), version=8),
        "id": UUID(int=chance.getrandbits(128), version=4),
        "event_type": event_type,
        "event_version": "1.0",
        "timestamp": at,
        "order": ((at - EARLIEST) // timedelta(milliseconds=1) << 20) + chance.randrange(2**20),
        "payload": {"order": chance.randrange(10**9), "total": chance.random(), "note": "n" * 150},
        "digest": os.urandom(32),
        "stored_at": at,
        "seq": Timestamp(0, 0),
        "expires_at": datetime.now(UTC) + _MONTH,
    }
