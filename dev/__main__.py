"""Run the demo, the fault tests, or a stack to work with."""

import json
import re
import secrets
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.table import Table

from dev import api_docs
from dev.database import CODEC
from dev.demo import pods as demo_pods
from dev.demo import run as the_demo
from dev.faults import plan as fault_plan
from dev.faults import run as the_faults
from dev.mutants.run import mutants
from dev.paths import ROOT
from dev.preflight import Unfit
from dev.process.child import StartFailed
from dev.process.signals import wait_for_a_signal
from dev.servers.issuer import SERVICE_PERMISSIONS
from dev.stack import Stack, shell
from dev.stack.running import Running, Steps, command_line_options, here, hold, kept, new_logs
from twofold.cli.table import plain
from twofold.event.identity import event_id_of
from twofold.web.permissions import Permission

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()
error_console = Console(stderr=True, style="red")

BrokerOption = Annotated[str, typer.Option("--broker", help="tansu, apache or testcontainers")]
PortsOption = Annotated[bool, typer.Option("--fixed-ports", help="use 8080 and up, 27017 and 9092, not free ports")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="write the figures to this file too")]
SHOWN_WITHIN_S = 10.0

app.command()(mutants)


@app.command()
def demo(
    *,
    broker: BrokerOption = "tansu",
    json_path: JsonOption = None,
    keep: Annotated[bool, typer.Option(help="leave the stack running, and print the command that stops it")] = False,
    fixed_ports: PortsOption = False,
) -> None:
    """Publish 1,100 events over HTTP, and compare both collections with the accepted events."""
    began, start = time.monotonic(), kept if keep else here
    with _explained(), _steps() as on_step, start(broker, on_step, fixed_ports=fixed_ports) as running:
        start_s = time.monotonic() - began
        report = the_demo.run(running, on_step)
    figures = report.figures | {"start_s": round(start_s, 2), "broker": running.broker}
    figures |= _left_running(running) if keep else {}
    _print_figures(figures, json_path)
    console.print(_kinds(figures["kinds_of_data"]), _timeline(report.timeline))
    _exit_if("The demo failed:", report.complaints, running.logs)
    console.print("Every accepted event is in both collections, once, with an equal digest.")
    if keep:
        print(
            f"\n. {shell.FILE.relative_to(ROOT)}   # the addresses of all functions, and TOKEN\n{running.stop_command}"
        )


def _left_running(running: Running) -> dict[str, Any]:
    names = ("mongodb_uri", "database", "kafka", "kafka_topic", "issuer_url", "token")
    addresses = {f"{name}_url": url for name, url in running.urls.items()}
    kept_at = {"env_file": str(shell.write(running)), "stop": running.stop_command}
    return {name: getattr(running, name) for name in names} | addresses | kept_at


def _print_figures(figures: dict[str, Any], json_path: Path | None) -> None:
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table(show_header=False)
    for name, value in figures.items():
        if name != "kinds_of_data":
            table.add_row(name, plain("-" if value is None else value))
    console.print(table)


def _exit_if(title: str, complaints: Sequence[str], logs: Path | str | None) -> None:
    """Print the complaints and exit with status 1, unless the list is empty."""
    if complaints:
        error_console.print("\n".join([title, *complaints, f"Logs: {logs}"]), markup=False)
        raise typer.Exit(1)


def _kinds(shown: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the data of each kind, as `query` shows it, as a table."""
    table = Table("kind of data", "payload", title=plain("One event of each kind of data"))
    for kind, data in shown.items():
        table.add_row(plain(kind), plain(json.dumps(data, ensure_ascii=False)))
    return table


def _timeline(events: Sequence[Mapping[str, Any]]) -> Table:
    """Return a pod's life in `event_store` as a table."""
    table = Table("time", "event", "content", title=plain(f"The life of the pod {demo_pods.SHOWN}"))
    for event in events:
        table.add_row(*map(plain, demo_pods.line_of(event)))
    return table


@app.command()
def faults(
    *,
    broker: Annotated[str, typer.Option(help="tansu or apache")] = "tansu",
    json_path: JsonOption = None,
    seed: Annotated[int | None, typer.Option(help="the seed of an earlier run (default: a new seed)")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="the least number of acknowledged events")] = None,
    count: Annotated[int | None, typer.Option("--faults", min=1, help="the number of faults")] = None,
    short: Annotated[bool, typer.Option(help="2,000 events and 9 short faults, not 20,000 and 25")] = False,
) -> None:
    """Publish under load, break everything at random moments, and prove that no event was lost, doubled or changed."""
    seed = secrets.randbits(32) if seed is None else seed
    console.print(f"seed {seed}")
    form = fault_plan.SHORT if short else fault_plan.FULL
    wanted = replace(
        form, seed=seed, broker=broker, events=events or form.events, faults=count or form.faults, logs=new_logs()
    )
    with _explained(), _steps() as on_step:
        figures = the_faults.run(wanted, on_step)
    _print_figures(figures, json_path)
    _exit_if(f"Seed {seed} failed:", figures["complaints"], wanted.logs)
    console.print("The log has every accepted event, once and unchanged. Every poison message is a dead letter.")


@app.command()
def up(
    *,
    broker: BrokerOption = "tansu",
    workers: Annotated[int, typer.Option(help="worker processes of each function")] = 1,
    members: Annotated[int, typer.Option(help="mongod processes in the replica set: 1 or 3")] = 1,
    auth: Annotated[bool, typer.Option(help="let MongoDB check users: each function has its own user")] = False,
    fixed_ports: PortsOption = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="watch this cluster's pods, not example pods")] = None,
) -> None:
    """Run the whole stack until Ctrl-C."""
    options = replace(
        command_line_options(broker, fixed_ports=fixed_ports),
        members=members,
        auth=auth,
        workers=workers,
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
    """Print plain, unwrapped lines: users copy them."""
    running = Running.of(stack)
    given_id = str(uuid.uuid4())
    addresses = dict(running.urls)
    addresses |= {"MongoDB": stack.mongodb_uri, "database": stack.database, "Kafka": stack.kafka}
    for name, address in (addresses | {"logs": str(stack.logs)}).items():
        print(f"{name:12} {address}")
    headers = {"specversion": "1.0", "id": given_id, "source": "/hello", "type": "com.example.greeting"}
    flags = " ".join(f"-H 'ce-{name}: {value}'" for name, value in headers.items())
    flags += " -H 'content-type: application/json' -d '{\"hello\": \"world\"}'"
    print(f"\nIn another terminal, these addresses and TOKEN:\n\n. {shell.write(running).relative_to(ROOT)}")
    print("make token SUB=ann ROLES='events:publish audit:read'   # a token with fewer permissions")
    print(f"\nPublish an event, and show it in both collections:\n\nTOKEN={running.token}")
    print(f'curl -i {stack.publish_url} -H "Authorization: Bearer $TOKEN" {flags}')
    for collection in ("events", "event_store"):
        print(running.show_command(collection, str(event_id_of(headers["source"], given_id))))
    print("\nCtrl-C ends everything.", flush=True)


@app.command()
def show(
    collection: Annotated[str, typer.Argument(help="events or event_store")],
    event_id: Annotated[uuid.UUID, typer.Argument(help="the event's _id")],
    mongodb_uri: Annotated[str, typer.Option()],
    database: Annotated[str, typer.Option()] = "twofold",
) -> None:
    """Show an event in a collection as JSON. Wait up to 10 seconds for the event."""
    with _explained(), MongoClient[dict[str, Any]](mongodb_uri, serverSelectionTimeoutMS=5000) as client:
        documents = client.get_database(database, codec_options=CODEC)[collection]
        deadline = time.monotonic() + SHOWN_WITHIN_S
        while (document := documents.find_one({"_id": event_id})) is None and time.monotonic() < deadline:
            time.sleep(0.1)
    if document is None:
        error_console.print(f"{event_id} is not in {collection}")
        raise typer.Exit(1)
    print(json.dumps(document, indent=2, ensure_ascii=False, default=_readable))


def _readable(value: object) -> str:
    """Return a BSON value that JSON lacks as text: a digest as hexadecimal digits, others as `str` does."""
    return value.hex() if isinstance(value, bytes) else str(value)


@app.command(name="token")
def print_token(
    sub: Annotated[str, typer.Option(help="the subject: a user or a service")] = "service",
    roles: Annotated[str, typer.Option(help="permissions: " + ", ".join(Permission))] = " ".join(SERVICE_PERMISSIONS),
) -> None:
    """Print a token for the last started stack of this checkout."""
    if unknown := sorted(set(re.split(r"[\s,]+", roles.strip())) - {*Permission, ""}):
        error_console.print(f"unknown role: {', '.join(unknown)}. Known: {', '.join(Permission)}", soft_wrap=True)
        raise typer.Exit(2)
    with _explained():
        print(shell.new_token(sub, roles))


@app.command(name="api-docs")
def write_api_docs() -> None:
    """Write docs/api.md from the functions' operations."""
    api_docs.FILE.write_text(api_docs.text())


@app.command(name="hold", hidden=True)
def hold_stack(*, broker: BrokerOption = "tansu", fixed_ports: PortsOption = False) -> None:
    """Own the stack of `demo --keep` until SIGTERM."""
    hold(command_line_options(broker, fixed_ports=fixed_ports))


@contextmanager
def _steps() -> Iterator[Steps]:
    """Show each step: a spinner on a terminal, lines in a log."""
    began = time.monotonic()
    with console.status("") as status:

        def on_step(step: str) -> None:
            status.update(plain(step))
            console.print(f"[dim]{time.monotonic() - began:6.1f} s[/dim]  ", plain(step), sep="", highlight=False)

        yield on_step


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error that a user can act on into its message and exit status 1."""
    try:
        yield
    except (Unfit, StartFailed, LookupError, PyMongoError) as error:
        error_console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
