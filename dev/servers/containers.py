"""Run servers in containers by testcontainers, an optional package for machines with Docker.

The containers use the network of the host. This needs Linux, or the setting "Enable host networking" of Docker Desktop.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dev.process.child import StartFailed, free_port, wait_until
from dev.servers.apache_kafka import settings_of
from dev.servers.kafka_process import answers

KAFKA_IMAGE = "apache/kafka:4.1.1"


def unavailable() -> str | None:
    """Return the reason why this machine cannot run containers, or None."""
    if importlib.util.find_spec("testcontainers") is None:
        return "the package testcontainers is not installed"
    if shutil.which("docker") is None:
        return "the command docker is missing"
    engine = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    return None if engine.returncode == 0 else "the Docker engine does not answer"


class Container:
    """A server in a container on the host's own network, with the methods of `process.child.Child`."""

    def __init__(
        self,
        name: str,
        image: str,
        ready: Callable[[], bool],
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        from testcontainers.core.container import DockerContainer

        self.name = name
        self._ready = ready
        self._started = False
        self._container: Any = DockerContainer(image, command=command, env=dict(environment), network_mode="host")

    @property
    def running(self) -> bool:
        """True from the start to the end of the container."""
        if not self._started:
            return False
        self._docker.reload()
        return bool(self._docker.status == "running")

    @property
    def _docker(self) -> Any:
        return self._container.get_wrapped_container()

    def start(self) -> None:
        """Start the container and wait until its server is ready."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start the container without waiting."""
        self._container.start()
        self._started = True

    def wait_ready(self) -> None:
        """Wait until the server is ready. Raises `StartFailed` after 60 s."""
        if not wait_until(self._ready, within=60.0, every=0.2):
            raise StartFailed(f"the container {self.name} was not ready after 60 s\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the last lines of the container's log."""
        return "".join(stream.decode(errors="replace")[-2000:] for stream in self._container.get_logs())

    def stop(self) -> None:
        """End and remove the container."""
        self._container.stop()

    def kill(self) -> None:
        """End the server like a crash. The container keeps its disk."""
        self._docker.kill()

    def restart(self) -> None:
        """Start the container again, with its disk and its address."""
        self._docker.restart(timeout=10)
        self.wait_ready()

    def pause(self) -> None:
        """Freeze the container: connections stay open and get no answer."""
        self._docker.pause()

    def resume(self) -> None:
        """Continue a frozen container."""
        self._docker.unpause()


class KafkaContainer(Container):
    """Apache Kafka in a container, with the settings of `apache_kafka`."""

    keeps_log = True

    def __init__(self, directory: Path, logs: Path, port: int | None = None) -> None:
        port = port or free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        settings = settings_of(port, free_port())
        environment = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in settings.items()}
        super().__init__("testcontainers", KAFKA_IMAGE, lambda: answers(self.bootstrap), environment=environment)
