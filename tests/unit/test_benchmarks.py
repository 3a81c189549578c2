"""The benchmark finds a run that lost, refused or repeated an event."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from benchmarks import contestants, supply
from benchmarks.arena import RanOut
from benchmarks.events import BATCH, PAYLOAD_BYTES, Feeds, batch, delivery, events, read, single
from benchmarks.figures import (
    CEILINGS,
    FLOORS,
    RATES,
    Figures,
    Held,
    LoadResult,
    Measurement,
    cold_start_ratio,
    complaints,
    p99_ratio,
    slowdown,
    spread,
)
from benchmarks.generator import generate
from benchmarks.load import CONNECTIONS, LoadFailed, report
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.cloudevents.decode_kafka import decode_kafka
from twofold.event.model import Event

pytestmark = pytest.mark.dev


def load(answered: int = 1000, **changes: float) -> LoadResult:
    given = {"refused": 0, "broken": 0, "seconds": 2.0, "p50_ms": 1.0, "p99_ms": 2.0, "repeated": False} | changes
    return LoadResult(answered=answered, **given)  # type: ignore[arg-type]


def run(**changes: object) -> Measurement:
    """Return a run of 1,000 acknowledged events after 100 in the warm-up. The servers hold these events."""
    good = Measurement(load(1000), load(100), Held(stored=1100, outbox_entries=1100), sends=True)
    return replace(good, **changes)  # type: ignore[arg-type]


def runs(rates: Mapping[str, float]) -> dict[str, list[Measurement]]:
    """Three runs of each contestant, around that rate."""
    return {
        name: [run(load=load(round(rate * factor), seconds=1.0)) for factor in (1.5, 1.0, 0.2)]
        for name, rate in rates.items()
    }


GOOD = dict(zip(RATES, (10_000, 5000, 500, 2500, 500, 7500), strict=True))


def test_a_complete_run_has_no_complaints() -> None:
    """More events may be stored than acknowledged, because requests were under way when the load ended."""
    assert complaints(run()) == []
    assert complaints(run(held=Held(stored=1164, outbox_entries=1164))) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"held": Held(stored=1099, outbox_entries=1100)}, "1100 events were acknowledged, and 1099 are stored"),
        (
            {"held": Held(stored=1100, outbox_entries=50, in_topic=1049)},
            "1049 are in the topic and 50 have an outbox entry",
        ),
        ({"held": Held(stored=1100, outbox_entries=1100, dead=1)}, "1 valid events became dead letters"),
        ({"load": load(1000, refused=2)}, "2 requests were refused"),
        ({"warm_up": load(100, refused=1)}, "1 requests were refused"),
        ({"load": load(1000, broken=3)}, "3 connections broke"),
        ({"load": load(1000, repeated=True)}, "sent twice"),
        ({"load": load(0)}, "nothing was answered"),
    ],
)
def test_a_worthless_run_is_found(changes: dict[str, object], says: str) -> None:
    """A single missing event is enough, in the warm-up too."""
    assert any(says in complaint for complaint in complaints(run(**changes)))


def test_every_event_of_a_batch_must_be_there() -> None:
    held = Held(stored=1100 * BATCH, outbox_entries=1100 * BATCH)
    batches = run(events_per_request=BATCH, held=held)
    assert complaints(batches) == []
    assert batches.rate == 1000 * BATCH / 2.0
    assert complaints(replace(batches, held=replace(held, stored=held.stored - 1)))


def test_the_limit_keeps_nothing_and_may_repeat() -> None:
    assert complaints(run(stores=False, sends=False, held=Held(stored=0), load=load(1000, repeated=True))) == []


KEPT = {ceiling: ceiling.most for ceiling in CEILINGS}
"""The greatest allowed values."""


def test_figures_are_medians_and_their_ratios() -> None:
    """An outlier on either side has no effect."""
    figures = Figures.of(runs(GOOD), KEPT).as_json()
    assert {name: figures[key] for name, key in RATES.items()} == GOOD
    assert [figures[floor.ratio] for floor in FLOORS] == [0.5, 10.0, 5.0, 3.0]


def test_the_json_has_exactly_the_promised_keys() -> None:
    assert list(Figures.of(runs(GOOD), KEPT).as_json()) == [
        "limit_rps",
        "store_rps",
        "naive_store_rps",
        "publish_rps",
        "naive_publish_rps",
        "publish_batch_eps",
        "store_of_limit",
        "store_vs_naive",
        "publish_vs_naive",
        "batch_vs_single",
        "cold_start_ratio",
        "publish_p99_kafka_frozen",
        "publish_p99_kafka_gone",
        "publish_slower_kafka_gone",
    ]


def test_each_floor_can_be_missed() -> None:
    assert Figures.of(runs(GOOD), KEPT).missed() == []
    for floor in FLOORS:
        slow = GOOD | {floor.of: GOOD[floor.to] * floor.least * 0.99}
        assert floor in Figures.of(runs(slow), KEPT).missed()


def test_each_ceiling_can_be_missed() -> None:
    for ceiling in CEILINGS:
        assert Figures.of(runs(GOOD), KEPT | {ceiling: ceiling.most + 0.01}).missed() == [ceiling]


def test_p99s_are_compared_by_their_medians() -> None:
    with_kafka, without = (
        [run(load=replace(load(1000), p99_ms=p99)) for p99 in each] for each in ((9, 10, 90), (11, 12, 99))
    )
    assert p99_ratio(without, with_kafka) == 1.2


def test_the_slowdown_is_a_ratio_of_times_for_an_event() -> None:
    """An outlier on either side has no effect."""
    with_kafka, without = (
        [run(load=load(answered)) for answered in rates] for rates in ((900, 1000, 5000), (100, 800, 900))
    )
    assert slowdown(without, with_kafka) == 1.25


def test_the_slowest_function_counts_by_its_median() -> None:
    starts = {"bare": [0.9, 1.0, 5.0], "publish": [1.5, 1.6, 9.0], "relay": [1.1, 1.2, 1.3]}
    assert cold_start_ratio(starts, "bare") == 1.6


def test_the_spread_is_the_slowest_and_the_fastest() -> None:
    assert spread(runs(GOOD)["limit"]) == (2000.0, 15_000.0)


def test_every_contestant_has_a_key() -> None:
    made = [value for value in vars(contestants).values() if isinstance(value, contestants.Contestant)]
    assert {contestant.name for contestant in made} == set(RATES)


def split(request: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])]
    assert dict(headers)[b"content-length"] == b"%d" % len(body)
    return headers, body


def test_the_ready_made_requests_hold_the_events() -> None:
    """Each function reads the very event from its request, with the true digest and 512 bytes of payload."""
    made = list(events(BATCH, "test"))
    assert {len(event.data.data) for event in made} == {PAYLOAD_BYTES}
    assert len({event.event_id for event in made}) == BATCH
    now = made[0].timestamp
    for offset, event in enumerate(made):
        delivered = decode_kafka(*split(delivery(event, offset)))
        assert delivered.event == event
        assert (delivered.partition, delivered.offset) == (offset % 4, offset // 4)
        published = decode_http(*split(single(event)), now, BATCH)
        assert isinstance(published, IncomingEvent)
        assert published.event.digest == event.digest
    assert [event.digest for event in _of_batch(batch(made))] == [event.digest for event in made]


def _of_batch(request: bytes) -> list[Event]:
    received = decode_http(*split(request), next(events(1, "now")).timestamp, BATCH)
    assert not isinstance(received, IncomingEvent)
    return [one.event for one in received if isinstance(one, IncomingEvent)]


def test_the_files_hold_each_event_once(tmp_path: Path) -> None:
    feeds = Feeds.write(tmp_path, measured=250, warm_up=50)
    assert len(feeds.ids) == 300
    assert len({*read(feeds.store.measured), *read(feeds.store.warm_up)}) == 300
    assert [len(_of_batch(request)) for request in read(feeds.batch.measured)] == [100, 100, 50]


def test_the_report_of_the_load_generator_is_its_last_line() -> None:
    line = json.dumps({"answered": 7, **dict.fromkeys(("refused", "broken", "seconds", "p50_ms", "p99_ms"), 0)})
    assert report(f'Running 5s test\n{line[:-1]}, "repeated": true}}\n').answered == 7
    with pytest.raises(LoadFailed):
        report("unable to connect")


class Server(asyncio.Protocol):
    """Answers with a short delay: 503 if the request ends in 5, else 202."""

    def __init__(self, seen: list[bytes]) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._seen.append(data)
        status = b"503 Service Unavailable" if data.endswith(b"5") else b"202 Accepted"
        answer = b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status
        asyncio.get_running_loop().call_later(0.01, self._transport.write, answer)


async def test_the_generator_counts_the_answers() -> None:
    """It counts errors too, but no request that still waits at the end."""
    seen: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Server(seen), "127.0.0.1", 0)
    async with server:
        made = await generate(server.sockets[0].getsockname()[1], [b"%d" % number for number in range(10**5)], 0.3)
        await asyncio.sleep(0.05)
    assert len(set(seen)) == len(seen)
    assert len(seen) - CONNECTIONS <= made.answered <= len(seen)
    assert abs(made.refused - made.answered / 10) <= CONNECTIONS
    assert (made.broken, made.repeated) == (0, False)


@pytest.mark.fault("C10")
@pytest.mark.parametrize("needed", [5_000, 18_000, 60_000, 600_000])
def test_a_machine_of_any_speed_gets_enough_events(needed: int) -> None:
    """The number was a constant: batches on a fast machine needed more, and the benchmark printed no figures."""
    tried: list[int] = []

    def attempt(per_s: int) -> str:
        tried.append(per_s)
        if per_s < needed:
            raise RanOut("publish batch: the ready-made events did not last")
        return "figures"

    assert supply.with_enough(supply.FIRST_PER_S, attempt, lambda _: None) == "figures"
    assert tried[-1] < max(2 * needed, supply.FIRST_PER_S + 1)


@pytest.mark.fault("C10")
def test_the_supply_of_events_has_an_end() -> None:
    def attempt(per_s: int) -> str:
        raise RanOut(str(per_s))

    with pytest.raises(RanOut, match="640000"):
        supply.with_enough(supply.FIRST_PER_S, attempt, lambda _: None)


@pytest.mark.fault("C10")
def test_only_a_function_that_stores_events_can_run_out() -> None:
    assert run(load=load(1000, repeated=True)).ran_out
    assert run(warm_up=load(100, repeated=True)).ran_out
    assert not run(load=load(1000, repeated=True), stores=False).ran_out
