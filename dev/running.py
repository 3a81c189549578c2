"""A stack as the command line sees it: in this process, or kept by a process of its own that outlives this one."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dev.paths import ROOT, SCRATCH
from dev.processes import StartFailed
from dev.signals import wait_for_a_signal
from dev.stack import Options, Stack

Steps = Callable[[str], None]

QUICK = {"RELAY_FIRST_LOOK_S": "2"}
"""So that one can watch a mark go; a cluster looks first after half a minute."""
RELAY_EVERY_S = 2.0

FIXED_PORTS = {"publish": 8080, "store": 8081, "relay": 8082, "query": 8083} | {
    "audit": 8084,
    "admin": 8085,
    "issuer": 8090,
    "mongod": 27017,
    "kafka": 9092,
}


@dataclass(frozen=True)
class Running:
    """Where everything is."""

    broker: str
    mongodb_uri: str
    database: str
    kafka: str
    publish_url: str
    pod_events_url: str
    token: str | None
    """What to send to it as a bearer token."""
    logs: str
    pid: int
    """The process that owns the stack; SIGTERM to it ends everything."""

    @classmethod
    def of(cls, stack: Stack) -> "Running":
        """The addresses of a stack of this process."""
        return cls(
            broker=stack.broker.name,
            mongodb_uri=stack.mongodb_uri,
            database=stack.database,
            kafka=stack.kafka,
            publish_url=stack.publish_url,
            pod_events_url=stack.pod_events_url,
            token=stack.token,
            logs=str(stack.logs),
            pid=os.getpid(),
        )

    @property
    def headers(self) -> dict[str, str]:
        """What each request needs besides its own headers."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def stop_command(self) -> str:
        """A shell command that ends a kept stack, and returns when it is gone."""
        return f"kill {self.pid} && timeout 30 tail --pid={self.pid} -f /dev/null"

    def show_command(self, collection: str, event_id: str) -> str:
        """A shell command, for the checkout's folder, that shows an event in a collection."""
        python = Path(sys.executable)
        shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
        words = [str(shown), "-m", "dev", "show", collection, event_id]
        return shlex.join([*words, "--mongodb-uri", self.mongodb_uri, "--database", self.database])


def command_line_options(
    broker: str,
    *,
    members: int = 1,
    auth: bool = False,
    workers: int = 1,
    fixed_ports: bool = False,
    pod_lives: bool = False,
    kubeconfig: Path | None = None,
) -> Options:
    """What `make demo` and `make dev` run.

    `MONGODB_URI` and `KAFKA_BOOTSTRAP_SERVERS` in the environment name servers to use in place of our own.
    """
    return Options(
        members=members,
        auth=auth,
        broker=broker,
        workers=workers,
        mongodb_uri=os.environ.get("MONGODB_URI"),
        kafka_bootstrap=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        settings=QUICK,
        relay_every_s=RELAY_EVERY_S,
        pod_lives=pod_lives,
        kubeconfig=kubeconfig,
        ports=FIXED_PORTS if fixed_ports else {},
        logs=new_logs(),
    )


def new_logs() -> Path:
    """A folder for the logs of a stack that the command line starts."""
    return SCRATCH / "logs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"


@contextmanager
def here(broker: str, on_step: Steps) -> Iterator[Running]:
    """A stack that ends with the block."""
    with Stack(command_line_options(broker), on_step=on_step) as stack:
        yield Running.of(stack)


@contextmanager
def kept(broker: str, on_step: Steps) -> Iterator[Running]:
    """A stack that a process of its own goes on with after the block, unless the block raises."""
    holder = subprocess.Popen(
        [sys.executable, "-m", "dev", "hold", "--broker", broker],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in this terminal isn't meant for it
    )
    try:
        yield _await(holder, on_step)
    except BaseException:
        holder.send_signal(signal.SIGTERM)
        holder.wait()
        raise


def _await(holder: "subprocess.Popen[str]", on_step: Steps) -> Running:
    """Follow what `hold` says until it is ready. Raises `StartFailed` with the reason if it gives up."""
    for line in holder.stdout or ():
        said = json.loads(line)
        if "ready" in said:
            return Running(**said["ready"])
        if "failed" in said:
            raise StartFailed(said["failed"])
        on_step(said["step"])
    raise StartFailed(f"the process that was to hold the stack ended with exit status {holder.wait()}")


def hold(options: Options) -> None:
    """Own a stack until SIGTERM; say each step, then where it is, as lines of JSON for `kept`."""
    try:
        with Stack(options, on_step=lambda step: _say(step=step)) as stack:
            _say(ready=asdict(Running.of(stack)))
            _let_go_of_the_terminal()
            wait_for_a_signal()
    except Exception as error:
        _say(failed=str(error))
        raise SystemExit(1) from error


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def _let_go_of_the_terminal() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
