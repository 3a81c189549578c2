"""Kafka: the bounded sender, the consumer group's lag, and the topic. The only importer of confluent-kafka."""
