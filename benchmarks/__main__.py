"""`python -m benchmarks`: measure `store` and `publish` beside the naive functions and the limit, in one run."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import cold_start, contestants, kafka_unavailable, supply
from benchmarks.arena import Arena, NotBelievable
from benchmarks.contestants import Contestant
from benchmarks.events import BATCH, PAYLOAD_BYTES
from benchmarks.figures import (
    CEILINGS,
    COLD_START,
    FLOORS,
    KAFKA_FROZEN,
    KAFKA_GONE,
    RATES,
    SLOWER_KAFKA_GONE,
    Ceiling,
    Figures,
    Floor,
    Measurement,
    cold_start_ratio,
    p99_ratio,
    slowdown,
    spread,
)
from benchmarks.load import CONNECTIONS, LoadFailed, LoadGenerator
from dev.preflight import Unfit
from dev.process.child import StartFailed
from dev.stack import Options, Stack
from dev.stack.running import Steps

ROUNDS = 3
THREADS = (4, 8, 16, 32)
_THREADS_S = 2.0
_BUSY = 1.25
"""The limit waits for no disk and no server. On an idle machine its rates vary less than this."""

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)
console = Console()
complain = Console(stderr=True, style="red")


@app.command()
def bench(
    json_path: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="length of a run")] = 8.0,
    broker: Annotated[str, typer.Option(help="tansu or apache")] = "tansu",
) -> None:
    """Measure, compare with the bounds, and exit with 1 after a missed bound or a lost event."""
    generator = LoadGenerator.here()
    try:
        with console.status("...") as status:
            runs, lineup, starts, by_state = _measure(generator, seconds, broker, status.update)
    except (NotBelievable, LoadFailed, StartFailed, Unfit, LookupError) as error:
        complain.print(f"No figures: {error}", markup=False)
        raise typer.Exit(1) from None
    figures = Figures.of(
        runs,
        {
            COLD_START: cold_start_ratio(starts, cold_start.BARE),
            KAFKA_FROZEN: p99_ratio(by_state[kafka_unavailable.FROZEN], by_state[kafka_unavailable.THERE]),
            KAFKA_GONE: p99_ratio(by_state[kafka_unavailable.GONE], by_state[kafka_unavailable.THERE]),
            SLOWER_KAFKA_GONE: slowdown(by_state[kafka_unavailable.GONE], by_state[kafka_unavailable.THERE]),
        },
    )
    if json_path:
        json_path.write_text(json.dumps(figures.as_json(), indent=2) + "\n")
    console.print(_rates(runs, lineup, figures), _by_state(by_state), _starts(starts), _ratios(figures))
    console.print(_small_print(runs, generator, seconds, broker), markup=False)
    slowest, fastest = spread(runs["limit"])
    if fastest > slowest * _BUSY:
        busy = f"The limit itself varied from {slowest:,.0f} to {fastest:,.0f}: this machine is busy, so run it again."
        complain.print(busy, markup=False)
    if figures.missed():
        raise typer.Exit(1)


_Measured = tuple[
    dict[str, list[Measurement]], Sequence[Contestant], dict[str, list[float]], dict[str, list[Measurement]]
]


def _measure(generator: LoadGenerator, seconds: float, broker: str, say: Steps) -> _Measured:
    with (
        tempfile.TemporaryDirectory(prefix="twofold-bench-") as folder,
        Stack(Options(with_functions=(), broker=broker), on_step=say) as stack,
    ):
        per_s = supply.needed_per_s(stack, Path(folder), generator, say)

        def measure(per_s: int) -> _Measured:
            say(f"making {per_s:,} events for each second of a run")
            arena = Arena(stack, supply.make(Path(folder), per_s, seconds), generator)
            return _measure_with(arena, stack, seconds, say)

        return supply.with_enough(per_s, measure, say)


def _measure_with(arena: Arena, stack: Stack, seconds: float, say: Steps) -> _Measured:
    lineup = (
        contestants.LIMIT,
        contestants.STORE,
        _at_its_best(arena, contestants.NAIVE_STORE, say),
        contestants.PUBLISH,
        _at_its_best(arena, contestants.NAIVE_PUBLISH, say),
        contestants.BATCHES,
    )
    runs = _rounds(arena, lineup, seconds, say)
    starts = cold_start.measure(stack, say)
    return runs, lineup, starts, kafka_unavailable.measure(arena, stack, seconds, say)


def _at_its_best(arena: Arena, contestant: Contestant, say: Steps) -> Contestant:
    """Return the naive function with its fastest number of threads."""
    candidates = [contestant.with_threads(threads) for threads in THREADS]
    rates = []
    for candidate in candidates:
        say(f"looking for the best THREADS of {contestant.name}: {dict(candidate.framework)['THREADS']}")
        rates.append(arena.run(candidate, _THREADS_S).rate)
    return candidates[rates.index(max(rates))]


def _rounds(arena: Arena, lineup: Sequence[Contestant], seconds: float, say: Steps) -> dict[str, list[Measurement]]:
    """Run every contestant once in a round, so a drift of the machine hits them alike."""
    runs: dict[str, list[Measurement]] = {contestant.name: [] for contestant in lineup}
    for turn in range(1, ROUNDS + 1):
        for contestant in lineup:
            say(f"round {turn} of {ROUNDS}: {contestant.name}")
            runs[contestant.name].append(arena.run(contestant, seconds))
    return runs


def _rates(runs: Mapping[str, Sequence[Measurement]], lineup: Sequence[Contestant], figures: Figures) -> Table:
    table = Table(title="Events a second")
    table.add_column("function")
    for heading in ("median", "slowest", "fastest", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for contestant in lineup:
        mine = sorted(runs[contestant.name], key=lambda run: run.rate)
        middle, (slowest, fastest) = mine[len(mine) // 2].load, spread(mine)
        threads = dict(contestant.framework).get("THREADS")
        table.add_row(
            contestant.name + (f" (THREADS={threads})" if threads else ""),
            f"{figures.as_json()[RATES[contestant.name]]:,.0f}",
            f"{slowest:,.0f}",
            f"{fastest:,.0f}",
            f"{middle.p50_ms:.1f}",
            f"{middle.p99_ms:.1f}",
        )
    return table


def _by_state(runs: Mapping[str, Sequence[Measurement]]) -> Table:
    table = Table(title="publish while Kafka is ...")
    table.add_column("Kafka")
    for heading in ("p99 ms", "p50 ms", "events a second"):
        table.add_column(heading, justify="right")
    for state, mine in runs.items():
        p99, p50 = (median(getattr(run.load, name) for run in mine) for name in ("p99_ms", "p50_ms"))
        table.add_row(state, f"{p99:.1f}", f"{p50:.1f}", f"{median(run.rate for run in mine):,.0f}")
    return table


def _starts(seconds: Mapping[str, Sequence[float]]) -> Table:
    table = Table(title="Seconds from the start to the first answer")
    table.add_column("function")
    for heading in ("median", "fastest", "slowest"):
        table.add_column(heading, justify="right")
    for name, taken in seconds.items():
        table.add_row(name, f"{median(taken):.2f}", f"{min(taken):.2f}", f"{max(taken):.2f}")
    return table


def _ratios(figures: Figures) -> Table:
    table = Table(title="Bounds")
    table.add_column("ratio")
    for heading in ("measured", "bound", "verdict"):
        table.add_column(heading, justify="right")
    missed = figures.missed()
    bounds: list[tuple[Floor | Ceiling, str]] = [
        *((floor, f">= {floor.least:.2f}") for floor in FLOORS),
        *((ceiling, f"<= {ceiling.most:.2f}") for ceiling in CEILINGS),
    ]
    for bound, written in bounds:
        verdict = "[red]missed" if bound in missed else "[green]held"
        table.add_row(bound.ratio, f"{figures.as_json()[bound.ratio]:.3f}", written, verdict)
    return table


def _small_print(
    runs: Mapping[str, Sequence[Measurement]], generator: LoadGenerator, seconds: float, broker: str
) -> str:
    acknowledged = sum(run.acknowledged for mine in runs.values() for run in mine if run.stores)
    published = [run for name in ("publish", "publish batch") for run in runs[name]]
    sent, taken = sum(run.held.in_topic for run in published), sum(run.acknowledged for run in published)
    return (
        f"{generator.name}, {CONNECTIONS} connections, payloads of {PAYLOAD_BYTES} bytes, batches of {BATCH}, "
        f"one worker, {broker}, {os.cpu_count()} CPUs; medians of {ROUNDS} runs of {seconds:g} s.\n"
        f"All {acknowledged:,} acknowledged events were found in the database afterwards. Of {taken:,} published ones, "
        f"and of those under way at a run's end, {sent:,} were in the topic when publish had ended; the others "
        "have an outbox entry, and relay sends them."
    )


if __name__ == "__main__":
    app()
