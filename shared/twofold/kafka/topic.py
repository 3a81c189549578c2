"""The topic: create it, or bring its settings up to date."""

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from twofold.errors import Unavailable
from twofold.kafka.client import ANSWER_S, client_module, connection_config
from twofold.kafka.diagnosis import ConnectionErrors, diagnose
from twofold.settings import SetupSettings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


def ensure_topic(settings: SetupSettings) -> None:
    """Create the topic, or update its settings and add missing partitions. Blocks.

    The number of partitions never shrinks. Raises `Unavailable` when Kafka is unavailable.
    """
    config = {
        "max.message.bytes": str(settings.max_message_bytes),
        "retention.ms": str(round(settings.setup_topic_retention_days * 86_400_000)),
        "cleanup.policy": "delete",
        "min.insync.replicas": str(settings.setup_topic_min_insync_replicas),
    }
    topic, partitions = settings.kafka_topic, settings.setup_topic_partitions
    kafka, reported = client_module(), ConnectionErrors()
    admin = _admin(settings, reported)
    try:
        new = kafka.admin.NewTopic(topic, partitions, settings.setup_topic_replication, config=config)
        if not _created(admin, new):
            set_ = partial(kafka.admin.ConfigEntry, incremental_operation=kafka.admin.AlterConfigOpType.SET)
            entries = [set_(setting, value) for setting, value in config.items()]
            changed = kafka.admin.ConfigResource(kafka.admin.ResourceType.TOPIC, topic, incremental_configs=entries)
            _wait(admin.incremental_alter_configs([changed], request_timeout=ANSWER_S))
            if len(admin.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions) < partitions:
                more = kafka.admin.NewPartitions(topic, partitions)
                _wait(admin.create_partitions([more], request_timeout=ANSWER_S))
    except kafka.KafkaException as error:
        admin.poll(0)  # librdkafka reports the cause now
        why = diagnose(reported.cause_of(error.args[0]), settings)
        raise Unavailable(f"the topic {topic} was not created or updated. {why}") from error


def _admin(settings: SetupSettings, reported: ConnectionErrors) -> "AdminClient":
    """Return a client. Raises `Unavailable` if librdkafka refuses the settings."""
    kafka = client_module()
    try:
        admin: AdminClient = kafka.admin.AdminClient(connection_config(settings) | {"error_cb": reported})
    except kafka.KafkaException as error:
        raise Unavailable(diagnose(error.args[0], settings)) from error
    return admin


def _created(admin: "AdminClient", topic: Any) -> bool:
    """Create the topic. Return False if it exists."""
    try:
        _wait(admin.create_topics([topic], request_timeout=ANSWER_S))
    except client_module().KafkaException as error:
        if error.args[0].code() != client_module().KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    return True


def _wait(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        future.result()
