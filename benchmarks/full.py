"""`python -m benchmarks.full` takes minutes: it compares queries of 10,000 events with queries of 1,000,000 events.

It also measures the worst request of any content for the functions that take events.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.arena import NotBelievable
from benchmarks.queries import LARGE, SMALL, Scaling, measure
from benchmarks.worst import LIMITS, MAX_ANSWER_BYTES, MAX_BLOCK_MS, MAX_RSS_MIB, worst
from dev.preflight import Unfit
from dev.process.child import StartFailed
from dev.stack import Options, Stack

MOST = 2.0
"""The greatest allowed ratio of the 99th percentiles: large collection to small collection."""

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)
console = Console()
complain = Console(stderr=True, style="red")


@app.command()
def full(
    json_path: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    """Measure, compare with the bound, and exit with 1 after a missed bound or a wrong answer."""
    try:
        with (
            console.status("...") as status,
            tempfile.TemporaryDirectory(prefix="twofold-bench-") as logs,
            Stack(Options(with_functions=(), logs=Path(logs)), on_step=status.update) as stack,
        ):
            scaling = measure(stack, status.update)
        with (
            console.status("the worst request") as status,
            tempfile.TemporaryDirectory(prefix="twofold-bench-") as logs,
            Stack(Options(with_functions=tuple(sorted(LIMITS)), logs=Path(logs)), on_step=status.update) as stack,
        ):
            cost = worst(stack)
    except (NotBelievable, StartFailed, Unfit, LookupError) as error:
        complain.print(f"No figures: {error}", markup=False)
        raise typer.Exit(1) from None
    if json_path:
        figures = scaling.as_json() | {
            "worst_block_ms": round(cost.block_ms, 1),
            "worst_rss_mib": round(cost.rss_mib, 1),
            "worst_answer_bytes": cost.answer_bytes,
        }
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(_table(scaling))
    console.print(
        f"The worst request blocked a function for {cost.block_ms:.0f} ms (at most {MAX_BLOCK_MS:g} are allowed), took "
        f"{cost.rss_mib:.0f} MiB (at most {MAX_RSS_MIB:g}), and had an answer of {cost.answer_bytes:,} bytes (at most "
        f"{MAX_ANSWER_BYTES:,})."
    )
    if scaling.worst > MOST:
        complain.print(f"The slowest is {scaling.worst:.2f} times as slow: more than {MOST:g}.")
        raise typer.Exit(1)
    if cost.block_ms > MAX_BLOCK_MS or cost.rss_mib > MAX_RSS_MIB or cost.answer_bytes > MAX_ANSWER_BYTES:
        complain.print("The worst request is beyond a bound.")
        raise typer.Exit(1)


def _table(scaling: Scaling) -> Table:
    table = Table(title="99th percentile of queries, ms")
    table.add_column("kind of query")
    for heading in (f"of {SMALL:,}", f"of {LARGE:,}", "times"):
        table.add_column(heading, justify="right")
    for kind, (small, large) in scaling.p99_ms.items():
        table.add_row(kind, f"{small:.1f}", f"{large:.1f}", f"{large / small:.2f}")
    return table


if __name__ == "__main__":
    app()
