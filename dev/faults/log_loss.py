"""Faults that lose the topic with its records."""

import random
import time
from contextlib import closing
from datetime import datetime

from bson.timestamp import Timestamp
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from pymongo.errors import PyMongoError

from dev.faults.site import Site, await_effect
from dev.faults.stops import kill
from dev.process.child import StartFailed

SOURCE_NOTICES_S = 3.0
"""The source may go on with offsets of the lost log for that long, and skip the first records of the new log."""


def broker_loses_log(site: Site, rng: random.Random) -> None:
    """Lose the topic, and set it up again."""
    with site.poisoner.lock:
        _lose_log(site, rng)
        time.sleep(SOURCE_NOTICES_S)


def _lose_log(site: Site, rng: random.Random) -> datetime:
    """Crash a broker that keeps no log, or delete the topic. Return the server's time before the topic exists again."""
    if site.stack.broker.keeps_log:
        _delete_topic(site)
        site.poisoner.log_lost()
    else:
        site.stack.broker.kill()
        time.sleep(rng.uniform(*site.pace.down_s))
        site.poisoner.log_lost()
        site.stack.broker.restart()
    hello = site.database.client.admin.command("hello", codec_options=site.database.codec_options)
    lost_at: datetime = hello["localTime"]
    await_effect(lambda: _is_set_up(site), "twofold.setup succeeds", every=0.5)
    return lost_at


def _delete_topic(site: Site) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=site.stack.kafka)) as admin:
        admin.delete_topics([site.stack.topic])
        await_effect(lambda: site.stack.topic not in admin.list_topics(), "the topic is deleted")


def _is_set_up(site: Site) -> bool:
    """Run setup once. In a cluster it is a Job, which Kubernetes repeats too."""
    try:
        site.stack.setup()
    except StartFailed:
        return False
    return True


def kill_relay_after_sending(site: Site, rng: random.Random) -> None:
    """Lose the log while no source delivers, so that relay must send again. Kill relay before its next check.

    Relay sends an event again if a younger event is in `event_store`, younger by more than clocks may differ: an older
    event may still wait in the topic. So `publish` must publish meanwhile, and no second source may deliver. Otherwise
    relay would have no lost event to send.
    """
    site.source.kill()
    time.sleep(SOURCE_NOTICES_S)
    with site.poisoner.lock:
        since = _lose_log(site, rng)
    with closing(KafkaConsumer(bootstrap_servers=site.stack.kafka)) as consumer:
        numbers = consumer.partitions_for_topic(site.stack.topic) or ()
        consumer.assign([TopicPartition(site.stack.topic, number) for number in numbers])
        consumer.seek_to_beginning()
        in_topic: set[str] = set()
        await_effect(lambda: _has_sent_again(site, since, consumer, in_topic), "relay sends again", every=0.005)
    time.sleep(rng.uniform(0, 0.1))
    kill("relay")(site, rng)
    site.source.start()


def _has_sent_again(site: Site, since: datetime, consumer: KafkaConsumer, in_topic: set[str]) -> bool:
    """Return True if the topic has an event that was accepted before `since` and that relay tried to send after it.

    Relay notes a try before it sends. A younger event may be in the topic because `publish` sent it.
    """
    for records in consumer.poll(timeout_ms=20).values():
        in_topic.update((dict(record.headers).get("ce_id") or b"").decode("latin-1") for record in records)
    again = {"outbox.sent_at": {"$gte": since}, "seq": {"$lt": Timestamp(int(since.timestamp()), 0)}}
    try:
        tried = site.database.events.find(again, {"id": 1})
        return any(str(event["id"]) in in_topic for event in tried)
    except PyMongoError:
        return False
