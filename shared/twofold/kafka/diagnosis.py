"""Messages for operators about a Kafka that a process cannot use: the address, the variable, the cause, the remedy.

librdkafka answers a call with a general error such as `_TRANSPORT`. It gives the cause to `error_cb`. So a caller
gathers these errors in `ConnectionErrors`.
"""

import ssl
from importlib.util import find_spec
from typing import TYPE_CHECKING

from twofold.errors import InvalidSettings, MissingExtra
from twofold.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

_GENERAL = ("_ALL_BROKERS_DOWN", "_TRANSPORT", "_TIMED_OUT", "_MSG_TIMED_OUT", "REQUEST_TIMED_OUT")
_USER = "Kafka refused the user: correct KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD or KAFKA_SASL_MECHANISM"
_TOPIC = "the topic {settings.kafka_topic} does not exist: run the Job `setup`, or correct KAFKA_TOPIC"
_CAUSES = {
    "_RESOLVE": "the host name is unknown: correct the host",
    "_SSL": "TLS failed: correct KAFKA_SSL_CAFILE or KAFKA_SECURITY_PROTOCOL",
    "_AUTHENTICATION": _USER,
    "SASL_AUTHENTICATION_FAILED": _USER,
    "TOPIC_AUTHORIZATION_FAILED": "Kafka's user may not use the topic {settings.kafka_topic}: grant the permission",
    "GROUP_AUTHORIZATION_FAILED": (
        "Kafka's user may not use the consumer group {settings.kafka_consumer_group}: grant the permission"
    ),
    "UNKNOWN_TOPIC_OR_PART": _TOPIC,
    "_UNKNOWN_TOPIC": _TOPIC,
}
"""The causes by the name of the error."""

_NO_ANSWER = "no broker answered: correct host and port, or start Kafka"


class ConnectionErrors:
    """The errors that librdkafka reports beside its answers. An instance is the `error_cb` of a client."""

    def __init__(self) -> None:
        self._errors: list[KafkaError] = []

    def __call__(self, error: "KafkaError") -> None:
        """Keep an error."""
        self._errors = [*self._errors[-9:], error]

    def cause_of(self, error: "KafkaError") -> "KafkaError":
        """Return the first reported error with more content than `error`, or `error` itself."""
        if error.name() not in _GENERAL:
            return error
        reported = [kept for kept in self._errors if kept.name() != "_ALL_BROKERS_DOWN"]
        return next((kept for kept in reported if kept.name() not in _GENERAL), reported[0] if reported else error)


def diagnose(error: "KafkaError", settings: KafkaSettings) -> str:
    """Return a line for the client's error: the servers, `KAFKA_BOOTSTRAP_SERVERS`, the cause and the remedy."""
    return f"Kafka at {settings.kafka_bootstrap_servers} (KAFKA_BOOTSTRAP_SERVERS): {_cause(error, settings)}"


def _cause(error: "KafkaError", settings: KafkaSettings) -> str:
    name, text = error.name(), error.str()
    if name in _CAUSES:
        return _CAUSES[name].format(settings=settings)
    if "refused" in text:
        return "nothing listens there: correct host and port, or start Kafka"
    if "isconnected" in text:
        return "the broker closed the connection: correct KAFKA_SECURITY_PROTOCOL"
    return _NO_ANSWER if name in _GENERAL else f"{text} ({name})"


def check_kafka(settings: KafkaSettings) -> None:
    """Check the settings without a connection. Raises `InvalidSettings` with the variable, or `MissingExtra`."""
    if find_spec("confluent_kafka") is None:
        raise MissingExtra("confluent-kafka", "kafka")
    if not settings.kafka_bootstrap_servers.strip():
        raise InvalidSettings("KAFKA_BOOTSTRAP_SERVERS is missing: set it to Kafka's addresses, HOST:PORT,HOST:PORT")
    for address in settings.kafka_bootstrap_servers.split(","):
        port = address.strip().rpartition("://")[2].rpartition(":")[2]
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise InvalidSettings(f"KAFKA_BOOTSTRAP_SERVERS: {address.strip()!a} is not HOST:PORT")
    if settings.kafka_security_protocol.startswith("SASL"):
        needed = ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")
        if missing := [name.upper() for name in needed if not getattr(settings, name)]:
            protocol = settings.kafka_security_protocol
            raise InvalidSettings(f"{', '.join(missing)} must be set with KAFKA_SECURITY_PROTOCOL={protocol}")
    if settings.kafka_ssl_cafile:
        _check_ca(settings.kafka_ssl_cafile)


def _check_ca(file: str) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise InvalidSettings(f"KAFKA_SSL_CAFILE: the file {file} has no valid certificate") from error
    except OSError as error:
        raise InvalidSettings(f"KAFKA_SSL_CAFILE: the file {file} cannot be read: {error.strerror}") from error
