"""The kinds of faults. Each does its harm, and returns when that is mended.

Two faults that have a part in common never meet; others do.
"""

import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from bson.timestamp import Timestamp
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from pymongo.database import Database
from pymongo.errors import PyMongoError

from dev.faults.load import Load
from dev.faults.plan import Pace
from dev.faults.poison import Poisoner
from dev.paths import ROOT
from dev.process.child import Child, StartFailed, free_port, plain_environment, wait_until
from dev.servers.mongod import ReplicaSet
from dev.stack import Stack
from dev.stack.functions import FunctionProcess

WITHIN_S = 60.0
"""How long anything may take that must come about."""
SOURCE_NOTICES_S = 3.0
"""How long the source goes on with offsets of a log that is lost; what is sent by then may be skipped."""
HOUR_S = 3600
SHIFTED_PUBLISH = ROOT / "dev" / "shifted_clock" / "main.py"
REDRIVEN_AT_ONCE = "200"


@dataclass(frozen=True)
class Site:
    """Where faults happen."""

    stack: Stack
    mongo: ReplicaSet
    source: Child
    load: Load
    poisoner: Poisoner
    database: Database[dict[str, Any]]
    pace: Pace


Inject = Callable[[Site, random.Random], None]


@dataclass(frozen=True)
class Kind:
    """One way to break things, and what it needs for itself meanwhile."""

    inject: Inject
    parts: frozenset[str]
    broker: str | None = None
    """The only broker on which it is possible."""


class Process(Protocol):
    """What can be killed, frozen and started again."""

    def kill(self) -> None:
        """SIGKILL."""

    def start(self) -> object:
        """Start it, and wait until it is ready."""

    def pause(self) -> None:
        """SIGSTOP."""

    def resume(self) -> None:
        """SIGCONT."""


def _process(site: Site, name: str) -> Process:
    processes: dict[str, Process] = {"source": site.source, "broker": site.stack.broker, **site.stack.functions}
    return processes[name]


def _must(come_about: Callable[[], bool], what: str, every: float = 0.05) -> None:
    if not wait_until(come_about, within=WITHIN_S, every=every):
        raise StartFailed(f"{what}: not within {WITHIN_S:g} s")


# --- kill -9, and start again ---------------------------------------------------------------------------------------


def kill(name: str) -> Inject:
    """Kill it, and start it again a little later."""

    def inject(site: Site, rng: random.Random) -> None:
        _process(site, name).kill()
        time.sleep(rng.uniform(*site.pace.down_s))
        _process(site, name).start()

    return inject


def kill_primary(site: Site, rng: random.Random) -> None:
    """Kill the member that takes writes; another takes over, and it comes back."""
    primary = site.mongo.wait_primary(WITHIN_S)
    site.mongo.kill(primary)
    time.sleep(rng.uniform(*site.pace.down_s))
    site.mongo.restart(primary)
    _must(site.mongo.all_joined, "the replica set is whole again")


def broker_loses_log(site: Site, rng: random.Random) -> None:
    """The topic is gone with all that was in it, and set up again: by a crash where that does it, else by deletion."""
    with site.poisoner.lock:
        _lose_log(site, rng)
        time.sleep(SOURCE_NOTICES_S)


def _lose_log(site: Site, rng: random.Random) -> datetime:
    """When, by the server's clock, nothing was left of the topic, and nothing could be sent to it yet."""
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
    _must(lambda: _is_set_up(site), "setup", every=0.5)
    return lost_at


def _delete_topic(site: Site) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=site.stack.kafka)) as admin:
        admin.delete_topics([site.stack.topic])
        _must(lambda: site.stack.topic not in admin.list_topics(), "the topic is deleted")


def _is_set_up(site: Site) -> bool:
    """Setup is a Job in the cluster, and tried again there too."""
    try:
        site.stack.setup()
    except StartFailed:
        return False
    return True


def kill_relay_after_sending(site: Site, rng: random.Random) -> None:
    """The log is lost and nothing is delivered, so relay must send again; it dies before it can look.

    What comes into the log before it is lost must be older than all that comes behind it, by more than clocks may be
    apart: what may still wait in the topic is not sent again. So `publish` must publish meanwhile, and no second source
    may deliver: else nothing is lost that relay would have to send.
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
        _must(lambda: _has_sent_again(site, since, consumer, in_topic), "relay sends again", every=0.005)
    time.sleep(rng.uniform(0, 0.1))
    kill("relay")(site, rng)
    site.source.start()


def _has_sent_again(site: Site, since: datetime, consumer: KafkaConsumer, in_topic: set[str]) -> bool:
    """Whether the topic has an event that was accepted before `since`, and for which relay noted a try after it.

    The try is noted before it is made; and what was accepted later may be there from `publish`.
    """
    for records in consumer.poll(timeout_ms=20).values():
        in_topic.update((dict(record.headers).get("ce_id") or b"").decode("latin-1") for record in records)
    again = {"outbox.sent_at": {"$gte": since}, "seq": {"$lt": Timestamp(int(since.timestamp()), 0)}}
    try:
        tried = site.database.events.find(again, {"metadata.source_event_id": 1})
        return any(event["metadata"].get("source_event_id", str(event["_id"])) in in_topic for event in tried)
    except PyMongoError:
        return False


# --- SIGSTOP --------------------------------------------------------------------------------------------------------


def stop(name: str) -> Inject:
    """Freeze it for a while: its connections stay open and nothing answers."""

    def inject(site: Site, rng: random.Random) -> None:
        _frozen(_process(site, name), rng.uniform(*site.pace.stop_s))

    return inject


def _frozen(process: Process, seconds: float) -> None:
    process.pause()
    try:
        time.sleep(seconds)
    finally:
        process.resume()


def stop_primary(site: Site, rng: random.Random) -> None:
    """Freeze the member that takes writes; when it goes on, it may still believe that it is the primary."""
    primary = site.mongo.wait_primary(WITHIN_S)
    site.mongo.pause(primary)
    try:
        time.sleep(rng.uniform(*site.pace.stop_s))
    finally:
        site.mongo.resume(primary)
    _must(site.mongo.all_joined, "the replica set is whole again")
    site.mongo.wait_primary(WITHIN_S)


def stop_between_clock_and_insert(site: Site, rng: random.Random) -> None:
    """Freeze publish a few times while it has many requests: some have their time by then, and are not yet inserted."""
    publish = _process(site, "publish")
    longest = site.pace.stop_s[1]
    for seconds in (*(rng.uniform(0.02, 0.2) for _ in range(4)), rng.uniform(longest / 2, longest)):
        site.load.hurry(on=True)
        try:
            _must(lambda: site.load.in_flight >= 8, "publish has many requests", every=0.002)
            publish.pause()
        finally:
            site.load.hurry(on=False)
        try:
            time.sleep(seconds)
        finally:
            publish.resume()


# --- away, late, twice ----------------------------------------------------------------------------------------------


def store_away_for_long(site: Site, rng: random.Random) -> None:
    """`store` is away for longer than the relay waits before it looks again."""
    store = _process(site, "store")
    store.kill()
    time.sleep(site.pace.first_look_s + rng.uniform(2, 3) * site.pace.back_off_s)
    store.start()


def delivered_twice(site: Site, rng: random.Random) -> None:
    """Another consumer group delivers all that is in the topic once more, while the first goes on."""
    number = secrets.token_hex(4)
    second = site.stack.new_source(name=f"kafka_source-{number}", group=f"{site.stack.consumer_group}-{number}")
    second.start()
    time.sleep(rng.uniform(*site.pace.stop_s))
    second.kill()


def source_gives_up(site: Site, rng: random.Random) -> None:
    """The source has few retries and `store` is away: what it reads goes to its dead-letter sink, and is committed."""
    given_up = {"reason": "undelivered"}
    before = site.database.dead_letters.count_documents(given_up)
    impatient = site.stack.new_source("--retry", "2", "--backoff-delay", "0.05", name="kafka_source-impatient")
    site.source.terminate(5.0)
    _process(site, "store").kill()
    impatient.start()
    _must(lambda: site.database.dead_letters.count_documents(given_up) > before, "the source gives up")
    time.sleep(rng.uniform(*site.pace.down_s))
    _process(site, "store").start()
    impatient.terminate(5.0)
    site.source.start()


def shifted_clock(seconds: int) -> Inject:
    """Some of the events go through a publisher whose clock is wrong; it ends as abruptly as it came."""

    def inject(site: Site, rng: random.Random) -> None:
        shift = {"FUNCTION_SOURCE": str(SHIFTED_PUBLISH), "CLOCK_SHIFT_S": str(seconds)}
        environment = site.stack.function_environment("publish") | shift
        shifted = FunctionProcess("publish", free_port(), environment, logs=site.stack.logs / f"shifted{seconds:+}")
        shifted.start()
        usual = site.load.urls
        site.load.urls = (*usual, shifted.url)
        try:
            time.sleep(rng.uniform(*site.pace.stop_s))
        finally:
            site.load.urls = usual
            shifted.kill()

    return inject


def redriven_twice_at_once(site: Site, _: random.Random) -> None:
    """Two operators redrive the same dead letters at the same time."""
    dead = {"state": "dead"}
    _must(lambda: site.database.dead_letters.count_documents(dead) > 9, "there are dead letters")
    for reason in sorted(site.database.dead_letters.distinct("reason", dead)):
        operators = [_redrive(site, reason) for _ in range(2)]
        for operator in operators:
            _end(operator)


def _redrive(site: Site, reason: str) -> "subprocess.Popen[bytes]":
    twofold = Path(sys.executable).with_name("twofold")
    arguments = ["dead-letters", "redrive", "--by", "faults", "--reason", reason, "--limit", REDRIVEN_AT_ONCE, "--json"]
    with (site.stack.logs / "redrive.log").open("ab") as log:
        return subprocess.Popen(
            [twofold, *arguments],
            env=plain_environment() | site.stack.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _end(operator: "subprocess.Popen[bytes]") -> None:
    """Wait for it; one that takes too long is killed, as an operator does too."""
    try:
        operator.wait(WITHIN_S)
    except subprocess.TimeoutExpired:
        operator.kill()
        operator.wait()


KINDS = {
    "kill_publish": Kind(kill("publish"), frozenset({"publish"})),
    "kill_store": Kind(kill("store"), frozenset({"store"})),
    "kill_relay": Kind(kill("relay"), frozenset({"relay"})),
    "kill_dead_letters": Kind(kill("dead_letters"), frozenset({"dead_letters"})),
    "kill_source": Kind(kill("source"), frozenset({"source"})),
    "kill_primary": Kind(kill_primary, frozenset({"mongo"})),
    "kill_broker": Kind(kill("broker"), frozenset({"broker"}), broker="apache"),
    "broker_loses_log": Kind(broker_loses_log, frozenset({"broker", "source"})),
    "kill_relay_after_sending": Kind(
        kill_relay_after_sending, frozenset({"publish", "broker", "source", "second_source", "relay", "mongo"})
    ),
    "stop_publish": Kind(stop("publish"), frozenset({"publish"})),
    "stop_store": Kind(stop("store"), frozenset({"store"})),
    "stop_relay": Kind(stop("relay"), frozenset({"relay"})),
    "stop_dead_letters": Kind(stop("dead_letters"), frozenset({"dead_letters"})),
    "stop_source": Kind(stop("source"), frozenset({"source"})),
    "stop_primary": Kind(stop_primary, frozenset({"mongo"})),
    "stop_broker": Kind(stop("broker"), frozenset({"broker"})),
    "stop_between_clock_and_insert": Kind(stop_between_clock_and_insert, frozenset({"publish"})),
    "clock_ahead": Kind(shifted_clock(HOUR_S), frozenset({"clock"})),
    "clock_behind": Kind(shifted_clock(-HOUR_S), frozenset({"clock"})),
    "store_away_for_long": Kind(store_away_for_long, frozenset({"store"})),
    "delivered_twice": Kind(delivered_twice, frozenset({"second_source"})),
    "source_gives_up": Kind(source_gives_up, frozenset({"source", "store", "dead_letters", "mongo", "broker"})),
    "redriven_twice_at_once": Kind(redriven_twice_at_once, frozenset({"redrive", "broker", "mongo"})),
}


def kinds_for(broker: str) -> dict[str, Kind]:
    """Those that are possible with that broker."""
    return {name: kind for name, kind in KINDS.items() if kind.broker in (None, broker)}
