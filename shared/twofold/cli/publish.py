"""The command that publishes lines of CloudEvents."""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twofold.cli.output import Json, progress, settings, show
from twofold.cloudevents import Received, from_http
from twofold.errors import TwofoldError
from twofold.publishing import Published, open_publisher


def publish(
    file: Annotated[Path, typer.Argument(help="CloudEvents in JSON, one a line; - is standard input.")] = Path("-"),
    as_json: Json = False,
) -> None:
    """Publish CloudEvents, by the same path as the function `publish`. Safe to repeat.

    What is refused is said line by line on standard error, and the exit status is 1.
    """
    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}")
    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as lines:
        counts = asyncio.run(_publish(lines))
    show(counts, as_json, "events")
    if counts["refused"]:
        raise typer.Exit(1)


async def _publish(lines: Iterable[bytes]) -> Mapping[str, int]:
    own = settings()
    counts = {"accepted": 0, "duplicate": 0, "refused": 0}
    async with open_publisher(own, "cli") as publisher:
        with progress("publishing", None) as advance:
            for first, group in _groups(lines, own.max_batch_events):
                outcomes = await publisher.publish([_read(line) for line in group])
                for number, outcome in enumerate(outcomes, start=first):
                    counts[outcome.status if isinstance(outcome, Published) else "refused"] += 1
                    if isinstance(outcome, TwofoldError):
                        Console(stderr=True).print(f"line {number}: {outcome}", highlight=False, markup=False)
                advance(first + len(group) - 1)
    return counts


def _groups(lines: Iterable[bytes], size: int) -> Iterator[tuple[int, list[bytes]]]:
    """The lines in groups, each with the number of its first line; the first line of all is 1."""
    iterator, first = iter(lines), 1
    while group := list(islice(iterator, size)):
        yield first, group
        first += len(group)


def _read(line: bytes) -> Received | TwofoldError:
    try:
        received = from_http([(b"content-type", b"application/cloudevents+json")], line, datetime.now(UTC), 1)
    except TwofoldError as error:
        return error
    return received if isinstance(received, Received) else received[0]
