"""Brokers whose process we don't have: one in a container, and one that somebody else runs."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

from dev.kafka_process import answers
from dev.processes import StartFailed, wait_until

IMAGE = "apache/kafka:4.1.1"


class Unsupported(RuntimeError):
    """This broker can't have that done to it: its process isn't ours."""


class ExternalBroker:
    """A broker that somebody else runs, at `bootstrap`. It can be used, and nothing can be done to it."""

    name = "external"
    keeps_log = True

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def start(self) -> None:
        """Check that it answers. Raises `StartFailed`."""
        self.wait_ready()

    def spawn(self) -> None:
        """Nothing: it runs."""

    def wait_ready(self) -> None:
        """Check that it answers. Raises `StartFailed`."""
        if not wait_until(lambda: answers(self.bootstrap), within=15.0, every=0.2):
            raise StartFailed(f"no Kafka broker answers at {self.bootstrap}")

    def stop(self) -> None:
        """Nothing: it isn't ours."""

    def kill(self) -> None:
        """Raise `Unsupported`."""
        raise Unsupported(f"the broker at {self.bootstrap} is not ours to stop or freeze")

    restart = pause = resume = kill


def unavailable() -> str | None:
    """Why a container can't be had here; None if it can."""
    if importlib.util.find_spec("testcontainers") is None:
        return "the package testcontainers[kafka] is not installed"
    if shutil.which("docker") is None:
        return "there is no docker command"
    engine = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    return None if engine.returncode == 0 else "no Docker engine answers"


class ContainerBroker:
    """Apache Kafka in a container, by testcontainers, for machines with Docker."""

    name = "testcontainers"
    keeps_log = True

    def __init__(self, directory: Path, logs: Path, port: int | None = None) -> None:
        from testcontainers.kafka import KafkaContainer  # an optional package, for machines with Docker

        self.bootstrap = ""
        self._container: Any = KafkaContainer(IMAGE).with_kraft()
        if port is not None:
            self._container.with_bind_ports(9093, port)

    def start(self) -> None:
        """`spawn` and `wait_ready`."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start the container; testcontainers waits for its log here."""
        self._container.start()
        self.bootstrap = self._container.get_bootstrap_server()

    def wait_ready(self) -> None:
        """Wait until a client can list topics."""
        if not wait_until(lambda: answers(self.bootstrap), within=60.0, every=0.2):
            raise StartFailed(f"the Kafka container does not answer at {self.bootstrap}")

    def stop(self) -> None:
        """End and remove the container."""
        self._container.stop()

    def kill(self) -> None:
        """End the broker as a crash does; the container's disk stays."""
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """Start the same container again, on its disk and its address."""
        self._container.get_wrapped_container().restart(timeout=10)
        self.wait_ready()

    def pause(self) -> None:
        """Freeze it."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._container.get_wrapped_container().unpause()
