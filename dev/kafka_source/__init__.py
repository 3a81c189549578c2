"""A stand-in for Knative's KafkaSource.

It obeys the rules of the data plane, bad rules included: one POST for each event, raw and damaged attributes, a fixed
list of retried statuses, finite retries, dead letters, and commits of contiguous offsets only.
"""
