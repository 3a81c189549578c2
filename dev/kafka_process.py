"""A Kafka broker that is a child process, and what "ready" means for any broker."""

import socket

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from dev.processes import Child


def answers(bootstrap: str) -> bool:
    """Whether a client can list the topics of the broker at `bootstrap` now."""
    try:
        _knock(bootstrap)
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


def _knock(bootstrap: str) -> None:
    """Raise `OSError` if nobody listens: a client that is made then takes its time-out, and leaks its sockets."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    socket.create_connection((host, int(port)), timeout=1.0).close()


class ProcessBroker:
    """A broker that is a child process of ours. Its address outlives it."""

    def __init__(self, name: str, child: Child, bootstrap: str, *, keeps_log: bool) -> None:
        self.name = name
        self.bootstrap = bootstrap
        self.keeps_log = keeps_log
        self._child = child

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._child.pid

    def start(self) -> None:
        """Start it, and wait until a client can list topics."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start it without waiting."""
        self._child.spawn()

    def wait_ready(self) -> None:
        """Wait until a client can list topics."""
        self._child.wait_ready()

    def stop(self) -> None:
        """End it. Its data is about to be removed, so there is nothing to be gained by asking first."""
        self._child.kill()

    def kill(self) -> None:
        """End it as a crash does."""
        self._child.kill()

    def restart(self) -> None:
        """Start it again at the same address, after ending it if it runs."""
        self._child.restart()

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers."""
        self._child.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._child.resume()
