"""`twofold`, the operator's command line. Settings come from the environment, as for the functions."""

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from twofold import mongo
from twofold.cloudevents import Received, from_http
from twofold.dead_letters import DeadLetters
from twofold.errors import TwofoldError
from twofold.events import EventRepository
from twofold.kafka import consumer_backlog, new_sender
from twofold.mongo import Database
from twofold.publishing import Published, open_publisher
from twofold.redriving import Redrive
from twofold.relaying import open_relay
from twofold.relaying import reconcile as reconcile_
from twofold.settings import Settings
from twofold.setup import passwords_in, set_up
from twofold.statements import Statements

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
relay = typer.Typer(no_args_is_help=True, help="The relay: takes marks off, and sends again what isn't in the log.")
letters = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be taken into the log.")
app.add_typer(relay, name="relay")
app.add_typer(letters, name="dead-letters")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]
State = Annotated[str | None, typer.Option(help="Only those: dead, redriving, stored or discarded.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason, as `dead-letters count` names it.")]
By = Annotated[str, typer.Option(help="Who does this; kept in the history.", default_factory=getpass.getuser)]

Done = TypeVar("Done")
console = Console()


def main() -> None:
    """Run the command line; trouble is one line and exit status 1."""
    try:
        app()
    except (TwofoldError, ValidationError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _settings() -> Settings:
    return Settings()


def _run(work: Callable[[Database, Settings], Awaitable[Done]]) -> Done:
    async def connected() -> Done:
        settings = _settings()
        async with mongo.connect(settings, "cli") as database:
            return await work(database, settings)

    return asyncio.run(connected())


def _print(value: Any, as_json: bool, title: str = "") -> None:
    """A dict as a table of names and values, a list of dicts as a table with a column for each name; or JSON."""
    plain = to_jsonable_python(value, bytes_mode="base64")
    if as_json:
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return
    rows = plain if isinstance(plain, list) else [{"": name, title or "value": item} for name, item in plain.items()]
    table = Table(*(rows[0] if rows else [title or "nothing"]))
    for row in rows:
        table.add_row(*("-" if item is None else str(item) for item in row.values()))
    console.print(table)


@app.command()
def setup() -> None:
    """Bring collections, indexes, roles, users and the topic to what they should be. Safe to repeat."""
    for line in asyncio.run(set_up(_settings(), passwords_in(os.environ))):
        console.print(line)


@app.command()
def status(as_json: Json = False) -> None:
    """Say how far the log is complete, and what is pending, dead or conflicting. Records no statement."""

    async def look(database: Database, settings: Settings) -> dict[str, Any]:
        statement = await _statements(database, settings).find_out()
        backlog = await asyncio.to_thread(consumer_backlog, settings)
        return {**asdict(statement), "lag": {str(number): lag for number, lag in sorted(backlog.lag.items())}}

    _print(_run(look), as_json, "now")


@app.command()
def statements(limit: Limit = 20, as_json: Json = False) -> None:
    """List the statements of completeness, newest first."""
    _print([asdict(line) for line in _run(lambda db, settings: _statements(db, settings).list(limit))], as_json)


def _statements(database: Database, settings: Settings) -> Statements:
    return Statements(database, timedelta(seconds=settings.mongodb_timeout_s))


@relay.command("run")
def relay_run(as_json: Json = False) -> None:
    """Do what the function `relay` does when its timer wakes it, once."""

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        done = await open_relay(database, new_sender(settings), settings).run()
        return asdict(done) if done else {"busy": "another relay is at it"}

    _print(_run(run), as_json, "events")


@app.command()
def reconcile(
    since: Annotated[datetime, typer.Option("--from", help="When the backup was made, or earlier (UTC).")],
    as_json: Json = False,
) -> None:
    """Compare `events` with the log, and mark again what the log lacks, so that the relay sends it.

    For the day on which `event_store` was restored from a backup.
    """

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        with _progress("comparing", await database["events"].estimated_document_count()) as advance:
            return asdict(await reconcile_(database, settings, since.replace(tzinfo=UTC), advance))

    _print(_run(run), as_json, "events")


@letters.command("list")
def list_letters(state: State = "dead", reason: Reason = None, limit: Limit = 50, as_json: Json = False) -> None:
    """List dead letters, the oldest first."""
    found = _run(lambda db, _: DeadLetters(db).list(_filter(state, reason), limit))
    shown = ("_id", "state", "reason", "detail", "event_id", "first_at", "last_at", "times")
    _print([{name: letter[name] for name in shown} for letter in found], as_json)


@letters.command()
def count(as_json: Json = False) -> None:
    """Count dead letters by state and reason."""
    counted = _run(lambda db, _: DeadLetters(db).count())
    _print([{"state": state, "reason": reason, "letters": n} for (state, reason), n in counted.items()], as_json)


@letters.command()
def show(letter_id: UUID) -> None:
    """Show a whole dead letter, with its history, as JSON; bytes are base64."""
    letter = _run(lambda db, _: DeadLetters(db).get(letter_id))
    if letter is None:
        raise typer.BadParameter(f"there is no letter {letter_id}")
    _print(letter, as_json=True)


@letters.command()
def redrive(
    by: By,
    letter_ids: Annotated[list[UUID] | None, typer.Argument(help="The letters; or all that --reason names.")] = None,
    reason: Reason = None,
    limit: Limit = 10_000,
    as_json: Json = False,
) -> None:
    """Send dead letters the normal way again, through Kafka to `store`."""
    if bool(letter_ids) == bool(reason):
        raise typer.BadParameter("name either letters or a --reason")

    async def run(database: Database, settings: Settings) -> dict[str, Any]:
        dead_letters = DeadLetters(database)
        ids = letter_ids or [letter["_id"] for letter in await dead_letters.list(_filter("dead", reason), limit)]
        redriving = Redrive(dead_letters, EventRepository(database), new_sender(settings))
        with _progress("redriving", len(ids)) as advance:
            return asdict(await redriving.redrive(ids, by, advance))

    _print(_run(run), as_json, "letters")


@letters.command()
def discard(
    by: By, letter_ids: list[UUID], why: Annotated[str, typer.Option(help="Why; kept in the history.")]
) -> None:
    """Decide that dead letters stay out of the log. They are kept all the same."""

    async def run(database: Database, _: Settings) -> list[UUID]:
        return [letter_id for letter_id in letter_ids if not await DeadLetters(database).discard(letter_id, by, why)]

    if untouched := _run(run):
        raise typer.BadParameter(f"not dead, so not discarded: {', '.join(map(str, untouched))}")


def _filter(state: str | None, reason: str | None) -> dict[str, Any]:
    return {name: value for name, value in (("state", state), ("reason", reason)) if value}


@app.command()
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
    _print(counts, as_json, "events")
    if counts["refused"]:
        raise typer.Exit(1)


async def _publish(lines: Iterable[bytes]) -> Mapping[str, int]:
    settings = _settings()
    counts = {"accepted": 0, "duplicate": 0, "refused": 0}
    async with open_publisher(settings, "cli") as publisher:
        with _progress("publishing", None) as advance:
            for first, group in _groups(lines, settings.max_batch_events):
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


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; the block says how far it has come."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda completed: progress.update(task, completed=completed)
