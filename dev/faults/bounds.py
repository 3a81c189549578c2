"""Events at the bounds of `publish`, and a little beyond: what `publish` accepts must reach the log. Pure."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dev.load.events import EventJson
from twofold.event.attribute import MAX_ATTRIBUTE_BYTES
from twofold.event.payload import MAX_DEPTH

MAX_RECORD_BYTES = 1_000_000
"""The default of the setting."""

_TIMES = (
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999999Z",
    "2024-02-29T23:59:59.9999+14:00",
)
_NUMBERS = (2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 1.7976931348623157e308, 5e-324, -0.0)


def _with_data(event: EventJson, **more: Any) -> EventJson:
    return {**event, "data": {**event["data"], **more}}


def _many_attributes(event: EventJson, rng: random.Random) -> EventJson:
    """Return an event with up to 100 attributes: a gateway refuses more than 100 headers of a request."""
    return {**event, **{f"x{number}": "1" for number in range(rng.randint(40, 95))}}


def _large_attributes(event: EventJson, rng: random.Random) -> EventJson:
    """Return an event whose attributes have about 32 KiB."""
    return {**event, **{f"x{number}": "v" * MAX_ATTRIBUTE_BYTES for number in range(rng.randint(28, 32))}}


def _long_attribute(event: EventJson, rng: random.Random) -> EventJson:
    text = "/" + "v" * (MAX_ATTRIBUTE_BYTES - rng.randint(0, 1))
    return {**event, rng.choice(("id", "source", "type", "subject", "correlationid", "x")): text}


def _large_record(event: EventJson, rng: random.Random) -> EventJson:
    return _with_data(event, note="x" * (MAX_RECORD_BYTES - rng.randint(0, 2500)))


def _deep(event: EventJson, rng: random.Random) -> EventJson:
    value: Any = 1
    for _ in range(MAX_DEPTH - rng.randint(0, 2)):
        value = rng.choice(([value], {"in": value}))
    return _with_data(event, deep=value)


def _names(event: EventJson, rng: random.Random) -> EventJson:
    return _with_data(
        event, **{name: rng.random() for name in ("", ".", "a.b", "$where", "$", "\x01", "\u2028", "é" * 999)}
    )


def _number(event: EventJson, rng: random.Random) -> EventJson:
    return _with_data(event, number=rng.choice(_NUMBERS))


def _time(event: EventJson, rng: random.Random) -> EventJson:
    return {**event, "time": rng.choice(_TIMES)}


BOUNDS: Mapping[str, Callable[[EventJson, random.Random], EventJson]] = {
    "many attributes": _many_attributes,
    "large attributes": _large_attributes,
    "long attribute": _long_attribute,
    "large record": _large_record,
    "deep": _deep,
    "names": _names,
    "number": _number,
    "time": _time,
}


def at_bounds(events: Iterator[EventJson], rng: random.Random) -> Iterator[EventJson]:
    """Yield the events, each changed to be at a bound: every bound comes equally often."""
    makers = list(BOUNDS.values())
    for number, event in enumerate(events):
        yield makers[number % len(makers)](event, rng)
