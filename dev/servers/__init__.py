"""The servers of a stack: MongoDB, the Kafka brokers, and the issuer of tokens."""
