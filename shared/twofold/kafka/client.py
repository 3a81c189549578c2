"""The Kafka client: its import, and the connection settings that every client shares."""

import asyncio
from functools import cache
from typing import Any

from twofold.errors import MissingExtra
from twofold.kafka.diagnosis import check_kafka
from twofold.settings import KafkaSettings

ANSWER_S = 10.0
"""The longest wait for an answer of a broker, in seconds."""
BOOTSTRAP_S = 5.0
"""The longest wait for a first connection to a broker, in seconds."""


@cache
def client_module() -> Any:
    """Import confluent-kafka at its first use. An import at the start would slow down a cold start.

    Raises `MissingExtra`.
    """
    try:
        import confluent_kafka  # noqa: PLC0415
        import confluent_kafka.admin  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtra("confluent-kafka", "kafka") from error

    return confluent_kafka


def connection_config(settings: KafkaSettings) -> dict[str, Any]:
    """Return the settings of a client. librdkafka logs only errors, because the callers warn about lost brokers.

    Raises `InvalidSettings`.
    """
    check_kafka(settings)
    password = settings.kafka_sasl_password
    config = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": "twofold",
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": password.get_secret_value() if password else None,
        "ssl.ca.location": settings.kafka_ssl_cafile,
        "socket.timeout.ms": round(ANSWER_S * 1000),
        "socket.connection.setup.timeout.ms": round(BOOTSTRAP_S * 1000),
        "reconnect.backoff.max.ms": 1000,
        "log_level": 2,
    }
    return {name: value for name, value in config.items() if value is not None}


async def is_listening(settings: KafkaSettings, timeout_s: float) -> bool:
    """Return True if a bootstrap server accepts a TCP connection within `timeout_s`, without importing the client."""
    for address in settings.kafka_bootstrap_servers.split(","):
        host, _, port = address.strip().rpartition("://")[2].rpartition(":")
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, ValueError):  # TimeoutError is an OSError
            continue
        writer.close()
        return True
    return False
