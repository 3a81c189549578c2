"""The naive log function: the CloudEvents SDK parses, and every event takes one `insert_one`. No digest, no group."""

import os
from functools import cache
from typing import Any

import functions_framework
from cloudevents.http.event import CloudEvent
from pymongo import MongoClient, WriteConcern
from pymongo.collection import Collection


@cache
def event_store() -> Collection[dict[str, Any]]:
    """Open the collection. The first request does so, after the fork."""
    client: MongoClient[dict[str, Any]] = MongoClient(os.environ["MONGODB_URI"])
    return client[os.environ["MONGODB_DATABASE"]].get_collection("event_store", write_concern=WriteConcern("majority"))


@functions_framework.cloud_event
def naive_store(event: CloudEvent) -> None:
    """Insert the event. Then the framework answers 200."""
    event_store().insert_one(
        {
            "_id": event["id"],
            "event_type": event["type"],
            "timestamp": event["time"],
            "aggregate_id": event["subject"],
            "source": event["source"],
            "payload": event.data,
        }
    )
