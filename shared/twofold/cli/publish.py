"""The command `twofold publish`."""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.options import JsonOption
from twofold.cli.output import progress, show, warn
from twofold.cloudevents.decode_http import IncomingEvent, decode_structured
from twofold.errors import TwofoldError, Unavailable
from twofold.settings import Settings
from twofold.settings.environment import read_settings
from twofold.web.permissions import ANYBODY
from twofold.write.batch import Published
from twofold.write.publisher import open_publisher

Counts = dict[str, int]


def publish(
    file: Annotated[Path, typer.Argument(help="A file with one JSON CloudEvent a line; - is standard input.")] = Path(
        "-"
    ),
    as_json: JsonOption = False,
) -> None:
    """Publish CloudEvents, as the function `publish` does. A repeated event is stored once.

    A refused event gives a line on standard error, and the exit status is 1. If MongoDB becomes unavailable, the
    command counts the accepted events, names the lines with an unknown outcome, and ends with exit status 1.
    """
    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}")
    settings = read_settings(Settings)
    counts = {"accepted": 0, "duplicate": 0, "refused": 0}
    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as lines:
        try:
            asyncio.run(_publish(lines, settings, counts))
        finally:
            show(counts, as_json, "events")
    if counts["refused"]:
        raise typer.Exit(1)


async def _publish(lines: Iterable[bytes], settings: Settings, counts: Counts) -> None:
    """Publish group by group, and add to `counts`. Raises `Unavailable` with the numbers of the affected lines."""
    async with open_publisher(settings, "cli") as publisher:
        with progress("publishing", None) as advance:
            for numbers, group in _groups(lines, settings.max_batch_events):
                try:
                    outcomes = await publisher.publish([_decode(line) for line in group])
                except Unavailable as error:
                    raise _unknown_outcome(numbers, error) from error
                _count(numbers, outcomes, counts)
                advance(numbers[-1])


def _groups(lines: Iterable[bytes], size: int) -> Iterator[tuple[list[int], list[bytes]]]:
    """Return groups of lines with their line numbers, from 1. Blank lines have a number and are left out."""
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    while group := list(islice(numbered, size)):
        yield [number for number, _ in group], [line for _, line in group]


def _decode(line: bytes) -> IncomingEvent | TwofoldError:
    """Return the event, or its error. An event of the cluster is refused, as for a caller of an open `publish`."""
    try:
        incoming = decode_structured(line, datetime.now(UTC))
    except TwofoldError as error:
        return error
    return ANYBODY.refusal(incoming.encoded.attributes) or incoming


def _count(numbers: list[int], outcomes: list[Published | TwofoldError], counts: Counts) -> None:
    """Add the outcomes to `counts`, and print the refusals. Raises `Unavailable` if an outcome is retriable."""
    unknown: dict[int, TwofoldError] = {}
    for number, outcome in zip(numbers, outcomes, strict=True):
        if isinstance(outcome, Published):
            counts[outcome.status] += 1
        elif outcome.retriable:
            unknown[number] = outcome
        else:
            counts["refused"] += 1
            warn(f"line {number}: {outcome}")
    if unknown:
        raise _unknown_outcome(list(unknown), next(iter(unknown.values())))


def _unknown_outcome(numbers: list[int], error: TwofoldError) -> Unavailable:
    where = f"line {numbers[0]}" if len(numbers) == 1 else f"lines {numbers[0]} to {numbers[-1]}"
    return Unavailable(
        f"{where}: it is unknown whether the events are stored: {error}. "
        "Publish all lines again: a repeated event is stored once"
    )
