"""CloudEvents 1.0 on the wire: decoding from HTTP and Kafka, encoding for both. Pure."""
