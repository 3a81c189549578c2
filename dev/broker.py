"""The Kafka brokers that a stack can have, behind one protocol: what may be done to any of them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from dev import apache_kafka, remote_kafka, tansu


class Broker(Protocol):
    """A Kafka broker. `start` returns when a client can list topics, not only when the port is open.

    All but `start` and `stop` raise `remote_kafka.Unsupported` for a broker whose process we don't have.
    """

    name: str
    bootstrap: str
    keeps_log: bool
    """Whether topics, records and offsets outlive `kill` and `restart`. Where not, run setup again."""

    def start(self) -> None:
        """`spawn` and `wait_ready`."""

    def spawn(self) -> None:
        """Start it without waiting."""

    def wait_ready(self) -> None:
        """Wait until a client can list topics."""

    def stop(self) -> None:
        """End it for good; nothing if it isn't ours."""

    def kill(self) -> None:
        """End it as a crash does."""

    def restart(self) -> None:
        """Start it again at the same address, after ending it if it runs."""

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers."""

    def resume(self) -> None:
        """Let it go on."""


class Provider(NamedTuple):
    """One way to have a broker."""

    unavailable: Callable[[], str | None]
    build: Callable[[Path, Path, int | None], Broker]


PROVIDERS = {
    "tansu": Provider(tansu.unavailable, tansu.Tansu),
    "apache": Provider(apache_kafka.unavailable, apache_kafka.ApacheKafka),
    "testcontainers": Provider(remote_kafka.unavailable, remote_kafka.ContainerBroker),
}


def create(provider: str, directory: Path, logs: Path, port: int | None = None) -> Broker:
    """The broker of that provider, not started. Its data goes to `directory`, its log to `logs`.

    Raises `LookupError` with the reason if this machine can't have it.
    """
    if provider not in PROVIDERS:
        raise LookupError(f"there is no broker {provider!r}; there are {', '.join(PROVIDERS)}")
    if reason := PROVIDERS[provider].unavailable():
        raise LookupError(f"no broker {provider!r} on this machine: {reason}")
    return PROVIDERS[provider].build(directory, logs, port)
