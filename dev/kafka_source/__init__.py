"""A stand-in for Knative's KafkaSource.

It obeys the rules of the data plane, bad rules included: one POST for each event, raw and damaged attributes, a fixed
list of retried statuses, finite retries, dead letters, commits of contiguous offsets only, no commit at SIGTERM,
batches of 50 records, the rate of the shipped ConfigMap, and the limit of headers of Envoy. 20 requests
of the real data plane judge it (`tests/fixtures/kafka_source_requests`).

These differences stay:

- The order of headers. The real order is that of Java's HashMap, and no receiver depends on it.
- The rate is a number (`--rate`), because it follows from the waits of Java's client for an empty fetch.
- A stack has a session time-out of 6 s, not 10 s: every start of a group on Tansu takes half of it.
- kafka-python assigns partitions with `range`, not with `StickyAssignor`. With one consumer there is no choice.
- A request under way at SIGTERM gets 5 s for its answer. The end of the real process was not observed this closely.
- A null header loses the batch of its partition. The real loss depends on the plain records of the same poll.
- The trace of an earlier record stays until another record has a trace. The end of the real leak was not observed.
- An edit of the source during retries blocks the real group until the old sink answers. A stand-in is never edited.
"""
