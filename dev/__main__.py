"""`python -m dev`: the demo, and the stack to work with."""

import json
import secrets
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.table import Table

from dev import api_docs, demo_pods
from dev import demo as the_demo
from dev.faults import run as the_faults
from dev.mutants.run import mutants
from dev.preflight import Unfit
from dev.processes import StartFailed
from dev.running import Running, Steps, command_line_options, here, hold, kept, new_logs
from dev.signals import wait_for_a_signal
from dev.stack import Stack

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()
complain = Console(stderr=True, style="red")

Broker = Annotated[str, typer.Option(help="tansu, apache or testcontainers")]
Workers = Annotated[int, typer.Option(help="worker processes of each function")]
SHOWN_WITHIN_S = 10.0

app.command()(mutants)


@app.command()
def demo(
    broker: Broker = "tansu",
    json_path: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    keep: Annotated[bool, typer.Option(help="leave the stack running, and say how to stop it")] = False,
) -> None:
    """Publish more than 1,000 events over HTTP and compare what both collections hold with what was accepted."""
    began = time.monotonic()
    with _explained(), _steps() as on_step, (kept if keep else here)(broker, on_step) as running:
        start_s = time.monotonic() - began
        report = the_demo.run(running, on_step)
    figures = report.as_json(start_s, running) | (_left_running(running) if keep else {})
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(_table(figures))
    console.print(_timeline(report.timeline))
    if report.complaints():
        complain.print("\n".join(["The demo failed:", *report.complaints(), f"Logs: {running.logs}"]), markup=False)
        raise typer.Exit(1)
    console.print("Every accepted event is in both collections, once, with an equal digest.")
    if keep:
        print(f"\nTOKEN={running.token}\n{running.stop_command}")


def _left_running(running: Running) -> dict[str, Any]:
    return {
        "mongodb_uri": running.mongodb_uri,
        "database": running.database,
        "kafka": running.kafka,
        "publish_url": running.publish_url,
        "token": running.token,
        "stop": running.stop_command,
    }


def _table(figures: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    for name, value in figures.items():
        table.add_row(name, "-" if value is None else str(value))
    return table


def _timeline(events: Sequence[Mapping[str, Any]]) -> Table:
    """A pod's life, as `event_store` has it."""
    table = Table("time", "event", "what it says", title=f"The life of the pod {demo_pods.SHOWN}")
    for event in events:
        table.add_row(*demo_pods.line_of(event))
    return table


@app.command()
def faults(
    *,
    broker: Annotated[str, typer.Option(help="tansu or apache")] = "tansu",
    json_path: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    seed: Annotated[int | None, typer.Option(help="of an earlier run; else a new one, which is printed")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="how many must be acknowledged, at least")] = None,
    count: Annotated[int | None, typer.Option("--faults", min=1, help="how many faults")] = None,
    short: Annotated[bool, typer.Option(help="2,000 events and 9 short faults; else 20,000 and 25")] = False,
) -> None:
    """Publish under load, break everything at random moments, and prove that nothing was lost, doubled or changed."""
    seed = secrets.randbits(32) if seed is None else seed
    console.print(f"seed {seed}")
    form = the_faults.SHORT_FORM if short else the_faults.FULL_FORM
    wanted = the_faults.Plan(seed, broker, form, events or form.events, count or form.faults, logs=new_logs())
    with _explained(), _steps() as on_step:
        report = the_faults.run(wanted, on_step)
    figures = report.as_json()
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    complaints = figures.pop("complaints")
    console.print(_table(figures))
    if complaints:
        complain.print("\n".join([f"Seed {seed} failed:", *complaints, f"Logs: {wanted.logs}"]), markup=False)
        raise typer.Exit(1)
    console.print(
        "Every accepted event is in the log, once and as it was sent; every poison is among the dead letters."
    )


@app.command()
def up(
    *,
    broker: Broker = "tansu",
    workers: Workers = 1,
    members: Annotated[int, typer.Option(help="mongod processes in the replica set: 1 or 3")] = 1,
    auth: Annotated[bool, typer.Option(help="MongoDB checks users, and each function has its own")] = False,
    fixed_ports: Annotated[bool, typer.Option(help="8080 and up, 27017 and 9092, not free ones")] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="watch that cluster's pods, not made-up ones")] = None,
) -> None:
    """Run the whole stack until Ctrl-C."""
    options = command_line_options(
        broker,
        members=members,
        auth=auth,
        workers=workers,
        fixed_ports=fixed_ports,
        pod_lives=True,
        kubeconfig=kubeconfig,
    )
    with _explained(), ExitStack() as running:
        with _steps() as on_step:
            stack = running.enter_context(Stack(options, on_step=on_step))
        _print_addresses(stack)
        try:
            wait_for_a_signal()
        except KeyboardInterrupt:
            console.print("stopping")


def _print_addresses(stack: Stack) -> None:
    """Plain lines, unwrapped: they are there to be copied."""
    running = Running.of(stack)
    event_id = str(uuid.uuid4())
    addresses = {name: function.url for name, function in stack.functions.items()}
    addresses |= {"MongoDB": stack.mongodb_uri, "database": stack.database, "Kafka": stack.kafka}
    for name, address in (addresses | {"logs": str(stack.logs)}).items():
        print(f"{name:12} {address}")
    headers = {"specversion": "1.0", "id": event_id, "source": "/hello", "type": "com.example.greeting"}
    flags = " ".join(f"-H 'ce-{name}: {value}'" for name, value in headers.items())
    print("\nPublish an event, and look at it in either collection:\n")
    if running.token:
        print(f"TOKEN={running.token}")
    bearer = ' -H "Authorization: Bearer $TOKEN"' if running.token else ""
    print(
        f"curl -i {stack.publish_url}{bearer} {flags} -H 'content-type: application/json' -d '{{\"hello\": \"world\"}}'"
    )
    print(running.show_command("events", event_id))
    print(running.show_command("event_store", event_id))
    print("\nCtrl-C ends everything.", flush=True)


@app.command()
def show(
    collection: Annotated[str, typer.Argument(help="events or event_store")],
    event_id: Annotated[uuid.UUID, typer.Argument(help="the event's identity, its _id")],
    mongodb_uri: Annotated[str, typer.Option()],
    database: Annotated[str, typer.Option()] = "twofold",
) -> None:
    """Show an event in a collection as JSON; wait a few seconds for one that is on its way."""
    codec: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD, tz_aware=True)
    with _explained(), MongoClient[dict[str, Any]](mongodb_uri, serverSelectionTimeoutMS=5000) as client:
        documents = client.get_database(database, codec_options=codec)[collection]
        deadline = time.monotonic() + SHOWN_WITHIN_S
        while (document := documents.find_one({"_id": event_id})) is None and time.monotonic() < deadline:
            time.sleep(0.1)
    if document is None:
        complain.print(f"{event_id} is not in {collection}")
        raise typer.Exit(1)
    print(json.dumps(document, indent=2, ensure_ascii=False, default=_readable))


def _readable(value: object) -> str:
    """BSON's types that JSON has not, for people: ids as UUIDs, digests as hexadecimal digits."""
    return value.hex() if isinstance(value, bytes) else str(value)


@app.command(name="api-docs")
def write_api_docs() -> None:
    """Write docs/api.md anew, from the functions' operations."""
    api_docs.FILE.write_text(api_docs.text())


@app.command(name="hold", hidden=True)
def hold_stack(broker: Broker = "tansu") -> None:
    """Own the stack of `demo --keep` until SIGTERM."""
    hold(command_line_options(broker))


@contextmanager
def _steps() -> Iterator[Steps]:
    """What is being done, as it is done: a spinner for people, lines for a log."""
    began = time.monotonic()
    with console.status("") as status:

        def on_step(step: str) -> None:
            status.update(step)
            console.print(f"[dim]{time.monotonic() - began:6.1f} s[/dim]  {step}", highlight=False)

        yield on_step


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what people can do something about into its message and exit status 1."""
    try:
        yield
    except (Unfit, StartFailed, LookupError, PyMongoError) as error:
        complain.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
