"""CloudEvents 1.0 in transit: decoding from HTTP and Kafka, and encoding for both. Pure: no I/O, no clock."""
