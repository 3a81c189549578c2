"""TODO module."""

from functools import cache
from typing import Any

from twofold.settings import KafkaSettings

ANSWER_S = 10.0
"""How long Kafka may take for one question."""


BOOTSTRAP_S = 5.0
"""How long it may take until there is a broker to ask."""


@cache
def client_module() -> Any:
    """confluent-kafka, imported when it is first used: `cold_start_ratio` feels it."""
    import confluent_kafka  # noqa: PLC0415
    import confluent_kafka.admin  # noqa: PLC0415

    return confluent_kafka


def connection_config(settings: KafkaSettings) -> dict[str, Any]:
    """What each client is told. librdkafka says much about a broker that is away: its callers say it once."""
    password = settings.kafka_sasl_password
    given = {
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
    return {name: value for name, value in given.items() if value is not None}
