"""TODO module."""

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from twofold.errors import Unavailable
from twofold.kafka.client import ANSWER_S, client_module, connection_config
from twofold.settings import SetupSettings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


def ensure_topic(settings: SetupSettings) -> None:
    """Make the topic, or bring its partitions (never fewer) and settings to what they should be. Blocks.

    Raises `Unavailable` when Kafka is away.
    """
    config = {
        "max.message.bytes": str(settings.max_message_bytes),
        "retention.ms": str(round(settings.setup_topic_retention_days * 86_400_000)),
        "cleanup.policy": "delete",
        "min.insync.replicas": str(settings.setup_topic_min_insync_replicas),
    }
    name, partitions = settings.kafka_topic, settings.setup_topic_partitions
    kafka = client_module()
    admin = kafka.admin.AdminClient(connection_config(settings))
    try:
        new = kafka.admin.NewTopic(name, partitions, settings.setup_topic_replication, config=config)
        if not _created(admin, new):
            set_ = partial(kafka.admin.ConfigEntry, incremental_operation=kafka.admin.AlterConfigOpType.SET)
            entries = [set_(setting, value) for setting, value in config.items()]
            changed = kafka.admin.ConfigResource(kafka.admin.ResourceType.TOPIC, name, incremental_configs=entries)
            _wait(admin.incremental_alter_configs([changed], request_timeout=ANSWER_S))
            if len(admin.list_topics(name, timeout=ANSWER_S).topics[name].partitions) < partitions:
                more = kafka.admin.NewPartitions(name, partitions)
                _wait(admin.create_partitions([more], request_timeout=ANSWER_S))
    except kafka.KafkaException as error:
        raise Unavailable(f"Kafka did not make the topic {name}: {error}") from error


def _created(admin: "AdminClient", topic: Any) -> bool:
    """Whether the topic was made, and not there before."""
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
