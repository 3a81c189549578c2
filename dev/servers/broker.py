"""The Kafka brokers that a stack can use."""

from collections.abc import Callable, Mapping
from pathlib import Path

from dev.process.child import StartFailed, wait_until
from dev.servers import apache_kafka, containers, tansu
from dev.servers.apache_kafka import ApacheKafka
from dev.servers.containers import KafkaContainer
from dev.servers.kafka_process import answers
from dev.servers.tansu import Tansu


class ExternalBroker:
    """A running broker at `bootstrap` that this stack does not own."""

    name = "external"
    keeps_log = True

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def spawn(self) -> None:
        """Do nothing: the broker runs."""

    def wait_ready(self) -> None:
        """Raise `StartFailed` if the broker does not answer within 15 s."""
        if not wait_until(lambda: answers(self.bootstrap), within=15.0, every=0.2):
            raise StartFailed(f"no Kafka broker answers at {self.bootstrap} (KAFKA_BOOTSTRAP_SERVERS)")

    start = wait_ready

    def stop(self) -> None:
        """Do nothing: the broker belongs to its owner."""

    def kill(self) -> None:
        """Raise `RuntimeError`."""
        raise RuntimeError(f"the broker at {self.bootstrap} is external: this stack cannot stop or freeze it")

    restart = pause = resume = kill


Broker = Tansu | ApacheKafka | KafkaContainer | ExternalBroker

PROVIDERS: Mapping[str, tuple[Callable[[], str | None], Callable[[Path, Path, int | None], Broker]]] = {
    "tansu": (tansu.unavailable, Tansu),
    "apache": (apache_kafka.unavailable, ApacheKafka),
    "testcontainers": (containers.unavailable, KafkaContainer),
}
"""By the broker's name: a function that returns why this machine cannot run the broker, and the broker's class."""


def create(provider: str, directory: Path, logs: Path, port: int | None = None) -> Broker:
    """Return a broker, not started. It keeps its data in `directory` and its logs in `logs`.

    Raises `LookupError` for an unknown broker, and with the reason if this machine cannot run the broker.
    """
    if provider not in PROVIDERS:
        raise LookupError(f"unknown broker {provider!r}: use one of {', '.join(PROVIDERS)}")
    unavailable, build = PROVIDERS[provider]
    if reason := unavailable():
        raise LookupError(f"this machine cannot run the broker {provider!r}: {reason}")
    return build(directory, logs, port)
