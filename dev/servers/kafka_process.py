"""Run a Kafka broker as a child process."""

import socket
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from dev.process.child import Child


def answers(bootstrap: str) -> bool:
    """Return True if a client can list the topics of the broker at `bootstrap` now."""
    try:
        _connect(bootstrap)
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=1000, request_timeout_ms=2000)
    except (KafkaError, OSError):
        return False
    try:
        admin.list_topics()
    except (KafkaError, OSError):
        return False
    finally:
        admin.close()
    return True


def _connect(bootstrap: str) -> None:
    """Raise `OSError` for a closed port: there, a new client would take its whole time-out and leak its sockets."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    socket.create_connection((host, int(port)), timeout=1.0).close()


class KafkaProcess(Child):
    """A broker on loopback. It is ready when a client can list topics, not only when the port is open."""

    keeps_log: bool
    """True if topics, records and offsets outlive `kill` and `restart`. If False, run setup again."""

    def __init__(
        self, name: str, command: list[str | Path], port: int, *, log: Path, ready_within: float = 30.0
    ) -> None:
        self.bootstrap = f"127.0.0.1:{port}"
        super().__init__(name, command, log=log, ready=lambda _: answers(self.bootstrap), ready_within=ready_within)
