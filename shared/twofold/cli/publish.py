"""The command that publishes lines of CloudEvents."""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twofold.cli.output import Json, progress, settings, show
from twofold.cloudevents.decode_http import IncomingEvent, decode_structured
from twofold.errors import TwofoldError, Unavailable
from twofold.settings import Settings
from twofold.write.publisher import Published, open_publisher

Counts = dict[str, int]


def publish(
    file: Annotated[Path, typer.Argument(help="CloudEvents in JSON, one a line; - is standard input.")] = Path("-"),
    as_json: Json = False,
) -> None:
    """Publish CloudEvents, by the same path as the function `publish`. Safe to repeat.

    What is refused is said line by line on standard error, and the exit status is 1. So it is where MongoDB goes away
    meanwhile: what was taken by then is counted, and the lines that may not be are named.
    """
    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}")
    own = settings()
    counts = {"accepted": 0, "duplicate": 0, "refused": 0}
    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as lines:
        try:
            asyncio.run(_publish(lines, own, counts))
        finally:
            show(counts, as_json, "events")
    if counts["refused"]:
        raise typer.Exit(1)


async def _publish(lines: Iterable[bytes], own: Settings, counts: Counts) -> None:
    """Publish group by group, and add up in `counts`. Raises `Unavailable`, which names the lines it is about."""
    async with open_publisher(own, "cli") as publisher:
        with progress("publishing", None) as advance:
            for numbers, group in _groups(lines, own.max_batch_events):
                try:
                    outcomes = await publisher.publish([_read(line) for line in group])
                except Unavailable as error:
                    raise _not_known(numbers, error) from error
                _tell(numbers, outcomes, counts)
                advance(numbers[-1])


def _groups(lines: Iterable[bytes], size: int) -> Iterator[tuple[list[int], list[bytes]]]:
    """The lines in groups, each with their numbers; the first line of all is 1, and what is blank is left out."""
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    while group := list(islice(numbered, size)):
        yield [number for number, _ in group], [line for _, line in group]


def _read(line: bytes) -> IncomingEvent | TwofoldError:
    try:
        return decode_structured(line, datetime.now(UTC))
    except TwofoldError as error:
        return error


def _tell(numbers: list[int], outcomes: list[Published | TwofoldError], counts: Counts) -> None:
    """Add the outcomes to `counts`, and say what is refused. Raises `Unavailable` where one can be sent again."""
    unknown: dict[int, TwofoldError] = {}
    for number, outcome in zip(numbers, outcomes, strict=True):
        if isinstance(outcome, Published):
            counts[outcome.status] += 1
        elif outcome.retriable:
            unknown[number] = outcome
        else:
            counts["refused"] += 1
            Console(stderr=True).print(f"line {number}: {outcome}", highlight=False, markup=False)
    if unknown:
        raise _not_known(list(unknown), next(iter(unknown.values())))


def _not_known(numbers: list[int], error: TwofoldError) -> Unavailable:
    where = f"line {numbers[0]}" if len(numbers) == 1 else f"lines {numbers[0]} to {numbers[-1]}"
    return Unavailable(f"{where} may not be stored: {error} - publish all again, that is safe")
