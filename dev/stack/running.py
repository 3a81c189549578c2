"""Run a stack for the command line: in this process, or in a process that outlives the command."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dev.paths import ROOT, SCRATCH
from dev.process.child import StartFailed
from dev.process.signals import wait_for_a_signal
from dev.stack.options import Options
from dev.stack.stack import Stack

Steps = Callable[[str], None]

FIXED_PORTS = {
    "publish": 8080,
    "store": 8081,
    "relay": 8082,
    "query": 8083,
    "audit": 8084,
    "admin": 8085,
    "dead_letters": 8086,
    "pod_events": 8087,
    "issuer": 8090,
    "mongod": 27017,
    "kafka": 9092,
}


@dataclass(frozen=True)
class Running:
    """The addresses of a running stack."""

    broker: str
    mongodb_uri: str
    database: str
    kafka: str
    kafka_topic: str
    kafka_consumer_group: str
    urls: Mapping[str, str]
    """The URL of each function, by its name."""
    issuer_url: str
    """The URL of the issuer's keys."""
    token: str
    """A bearer token with all permissions."""
    logs: str
    pid: int
    """The process that owns the stack. SIGTERM to this process ends the stack."""

    @classmethod
    def of(cls, stack: Stack) -> "Running":
        """Return the addresses of a stack of this process."""
        return cls(
            broker=stack.broker.name,
            mongodb_uri=stack.mongodb_uri,
            database=stack.database,
            kafka=stack.kafka,
            kafka_topic=stack.topic,
            kafka_consumer_group=stack.consumer_group,
            urls={name: function.url for name, function in stack.functions.items()},
            issuer_url=stack.issuer.url,
            token=stack.token,
            logs=str(stack.logs),
            pid=os.getpid(),
        )

    @property
    def publish_url(self) -> str:
        """The URL of publish."""
        return self.urls["publish"]

    @property
    def pod_events_url(self) -> str:
        """The sink of an ApiServerSource."""
        return self.urls["pod_events"]

    @property
    def headers(self) -> dict[str, str]:
        """The header that authorizes a request."""
        return {"authorization": f"Bearer {self.token}"}

    @property
    def stop_command(self) -> str:
        """A shell command that ends a kept stack and waits for the end."""
        return f"kill {self.pid} && timeout 30 tail --pid={self.pid} -f /dev/null"

    def show_command(self, collection: str, event_id: str) -> str:
        """Return a shell command, for the checkout's folder, that shows an event in a collection."""
        python = Path(sys.executable)
        shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
        words = [str(shown), "-m", "dev", "show", collection, event_id]
        return shlex.join([*words, "--mongodb-uri", self.mongodb_uri, "--database", self.database])


def command_line_options(broker: str, *, fixed_ports: bool = False) -> Options:
    """Return the options of `make demo` and `make dev`. The relay starts early, so that its work can be watched.

    Environment variables name other servers: `MONGODB_URI` and `KAFKA_BOOTSTRAP_SERVERS` external servers,
    `MONGODB_IMAGE` (`mongo:8.0`) an image to run in a container.
    """
    return Options(
        broker=broker,
        mongodb_image=os.environ.get("MONGODB_IMAGE"),
        mongodb_uri=os.environ.get("MONGODB_URI"),
        kafka_bootstrap=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        settings={"RELAY_FIRST_LOOK_S": "2"},
        relay_every_s=2.0,
        ports=FIXED_PORTS if fixed_ports else {},
        logs=new_logs(),
    )


def new_logs() -> Path:
    """Return a new folder name for the logs of a stack of the command line."""
    return SCRATCH / "logs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"


@contextmanager
def here(broker: str, on_step: Steps, *, fixed_ports: bool = False) -> Iterator[Running]:
    """Run a stack that ends with the block."""
    with Stack(command_line_options(broker, fixed_ports=fixed_ports), on_step=on_step) as stack:
        yield Running.of(stack)


@contextmanager
def kept(broker: str, on_step: Steps, *, fixed_ports: bool = False) -> Iterator[Running]:
    """Run a stack in a process that outlives the block, unless the block raises."""
    holder = subprocess.Popen(
        [sys.executable, "-m", "dev", "hold", "--broker", broker, *(["--fixed-ports"] if fixed_ports else [])],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in this terminal must not end the holder
    )
    try:
        yield _await(holder, on_step)
    except BaseException:
        holder.send_signal(signal.SIGTERM)
        holder.wait()
        raise


def _await(holder: "subprocess.Popen[str]", on_step: Steps) -> Running:
    """Follow the output of `hold` until the stack is ready. Raises `StartFailed` with the holder's reason."""
    for line in holder.stdout or ():
        message = json.loads(line)
        if "ready" in message:
            return Running(**message["ready"])
        if "failed" in message:
            raise StartFailed(message["failed"])
        on_step(message["step"])
    raise StartFailed(f"the process that holds the stack ended with exit status {holder.wait()}")


def hold(options: Options) -> None:
    """Own a stack until SIGTERM. Print each step and then the addresses as lines of JSON for `kept`."""
    try:
        with Stack(options, on_step=lambda step: _print(step=step)) as stack:
            _print(ready=asdict(Running.of(stack)))
            _close_output()
            wait_for_a_signal()
    except Exception as error:
        _print(failed=str(error))
        raise SystemExit(1) from error


def _print(**message: object) -> None:
    print(json.dumps(message), flush=True)


def _close_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
