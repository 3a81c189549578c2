"""The naive dual write: a request waits for one `insert_one`, then for one send."""

import json
import os
from functools import cache
from typing import Any

import flask
import functions_framework
from cloudevents.http import from_http
from kafka import KafkaProducer
from pymongo import MongoClient, WriteConcern
from pymongo.collection import Collection


@cache
def events() -> Collection[dict[str, Any]]:
    """Open the collection. The first request does so, after the fork."""
    client: MongoClient[dict[str, Any]] = MongoClient(os.environ["MONGODB_URI"])
    return client[os.environ["MONGODB_DATABASE"]].get_collection("events", write_concern=WriteConcern("majority"))


@cache
def producer() -> KafkaProducer:
    """Open the producer. The first request does so, after the fork."""
    return KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"].split(","), acks="all")


@functions_framework.http
def naive_publish(request: flask.Request) -> tuple[dict[str, str], int]:
    """Insert the event, wait for Kafka, and answer 202."""
    event = from_http(request.headers, request.get_data())
    document = {
        "_id": event["id"],
        "event_type": event["type"],
        "timestamp": event["time"],
        "aggregate_id": event["subject"],
        "source": event["source"],
        "payload": event.data,
    }
    events().insert_one(document)
    producer().send(os.environ["KAFKA_TOPIC"], json.dumps(document).encode(), event["subject"].encode()).get(timeout=30)
    return {"id": event["id"], "result": "accepted"}, 202
