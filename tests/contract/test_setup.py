"""What `twofold.setup` makes of real servers, and what the database then lets each function do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from dev.process.child import wait_until
from dev.servers.broker import Broker
from dev.stack import Stack
from tests.helpers import View, accept, an_event, eventually, failing, log, settings_of, without_kafka
from twofold.cloudevents.encode import encode_kafka
from twofold.errors import Unavailable
from twofold.event.model import Event
from twofold.kafka.sender import Sender
from twofold.kafka.topic import ensure_topic
from twofold.mongo.client import Database, open_database
from twofold.settings import Settings
from twofold.setup.collections import COLLECTIONS, INDEXES
from twofold.setup.roles import ROLES, passwords_in
from twofold.setup.run import set_up, set_up_patiently
from twofold.storage.event_store import EventStore
from twofold.storage.events import EventRepository
from twofold.storage.outbox import Outbox

PASSWORDS = {function: f"made-up for {function}" for function in ROLES}


async def state(database: Database) -> dict[str, Any]:
    """All that set-up makes in the database, as the server tells it."""
    users = await database.command("usersInfo", showPrivileges=False)
    roles = await database.command("rolesInfo", 1, showPrivileges=True)
    return {
        "indexes": {name: await database[name].index_information() for name in COLLECTIONS},
        "users": {user["user"]: user["roles"] for user in users["users"]},
        "roles": {role["role"]: role["privileges"] for role in roles["roles"]},
    }


@pytest.fixture
async def with_users(settings: Settings, database: Database) -> AsyncIterator[Settings]:
    """Settings of a database in which every function has a user."""
    await set_up(settings, PASSWORDS)
    yield settings
    await database.command("dropAllUsersFromDatabase")
    await database.command("dropAllRolesFromDatabase")


class TestIdempotence:
    async def test_a_second_run_changes_nothing(self, with_users: Settings, database: Database) -> None:
        before = await state(database)
        await set_up(with_users, PASSWORDS)
        assert await state(database) == before

    async def test_it_makes_all_that_is_listed(self, with_users: Settings, database: Database) -> None:
        made = await state(database)
        for name, indexes in INDEXES.items():
            assert {"_id_", *(index.document["name"] for index in indexes)} == set(made["indexes"][name])
        assert set(made["users"]) == set(ROLES)
        assert made["users"]["store"] == [{"role": "twofold_store", "db": with_users.mongodb_database}]

    async def test_several_at_once_do_no_harm(self, settings: Settings, database: Database) -> None:
        """Two Jobs of two releases may meet, on a database that has nothing yet."""
        fresh = settings.model_copy(
            update={
                "mongodb_database": f"{settings.mongodb_database}_fresh",
                "kafka_topic": f"{settings.kafka_topic}.fresh",
            }
        )
        try:
            results = await asyncio.gather(*(set_up(fresh, PASSWORDS) for _ in range(4)))
            assert results == [results[0]] * 4
        finally:
            database = database.client[fresh.mongodb_database]
            await database.command("dropAllUsersFromDatabase")
            await database.command("dropAllRolesFromDatabase")
            await database.client.drop_database(database.name)

    async def test_events_outlive_a_second_run(self, with_users: Settings, database: Database) -> None:
        event = an_event()
        await log(database, event)
        await set_up(with_users, PASSWORDS)
        assert await EventStore(database).get(event.event_id) == event

    async def test_an_index_may_take_longer_to_build_than_any_other_operation(
        self, settings: Settings, database: Database
    ) -> None:
        """As it does over millions of events that were restored from a backup."""
        impatient = settings.model_copy(update={"mongodb_timeout_s": 1.0})
        slow: dict[str, Any] = {"failCommands": ["createIndexes"], "blockConnection": True, "blockTimeMS": 1500}
        async with failing(database, "setup", **slow):
            assert await set_up(impatient, {})

    async def test_a_role_is_brought_back_to_what_it_should_be(self, with_users: Settings, database: Database) -> None:
        """Rights that somebody added, or that an older release gave, are taken away."""
        before = await state(database)
        everything = {"resource": {"db": database.name, "collection": ""}, "actions": ["remove", "update"]}
        await database.command("updateRole", "twofold_store", privileges=[everything])
        await database.command("updateUser", "store", roles=["twofold_store", "dbOwner"])
        await set_up(with_users, PASSWORDS)
        assert await state(database) == before

    async def test_a_new_password_takes_effect(self, with_users: Settings, stack: Stack) -> None:
        await set_up(with_users, PASSWORDS | {"relay": "a new one"})
        with as_user(stack, with_users.mongodb_database, "relay", "a new one") as database:
            assert database.events.find_one() is None

    async def test_who_may_not_is_told_what(self, with_users: Settings, stack: Stack) -> None:
        """An operator who runs it. The driver's own error is an `OperationFailure` whatever was refused."""
        assert stack.mongo is not None
        uri = stack.mongo.uri_for("operator", PASSWORDS["operator"], with_users.mongodb_database)
        as_operator = with_users.model_copy(update={"mongodb_uri": SecretStr(uri)})
        with pytest.raises(
            Unavailable, match=r"may not create the collection event_store: .* run the Job `setup` again"
        ):
            await set_up(as_operator, {})

    async def test_a_patient_one_tries_again(self, settings: Settings, database: Database) -> None:
        """As in a first deployment, where MongoDB starts beside it."""
        refused: dict[str, Any] = {"failCommands": ["createIndexes"], "errorCode": 91}  # ShutdownInProgress
        async with failing(database, "setup", times=3, **refused):
            with pytest.raises(Unavailable):
                await set_up_patiently(settings, {}, patience_s=0.0)
            assert await set_up_patiently(settings, {}, patience_s=60.0, pause_s=0.01)

    async def test_without_passwords_there_are_no_users(self, settings: Settings, database: Database) -> None:
        """Where MongoDB checks nobody, as in a quick trial, set-up needs no rights to make users."""
        assert (await state(database))["users"] == {}

    def test_passwords_come_from_the_environment(self) -> None:
        given = {"MONGODB_PASSWORD_STORE": "secret", "MONGODB_PASSWORD_RELAY": "", "OTHER": "x"}
        assert passwords_in(given) == {"store": "secret"}


LIMITS = {"max.message.bytes", "min.insync.replicas", "retention.ms"}


class TestTopic:
    def test_it_has_the_partitions_of_the_settings(self, settings: Settings) -> None:
        ensure_topic(named := with_topic(settings, setup_topic_partitions=3))
        assert wait_until(lambda: partitions(named) == 3, within=10.0)  # Apache Kafka's brokers learn of it later

    def test_partitions_are_never_taken_away(self, settings: Settings) -> None:
        ensure_topic(settings.model_copy(update={"setup_topic_partitions": 1}))
        assert partitions(settings) == 4

    @pytest.mark.slow
    async def test_a_broker_that_is_away_is_told(self, settings: Settings) -> None:
        with pytest.raises(Unavailable, match="Kafka"):
            await set_up(without_kafka(settings), {})

    @pytest.mark.apache
    @pytest.mark.java
    def test_a_topic_that_is_there_is_adjusted(self, settings: Settings, apache: Broker) -> None:
        """Tansu, which takes these settings and forgets them, can't show it."""
        first = with_topic(settings, kafka_bootstrap_servers=apache.bootstrap)
        ensure_topic(first)
        assert wait_until(lambda: partitions(first) == 4, within=10.0)
        assert limits(first) == {
            "max.message.bytes": "1065536",
            "min.insync.replicas": "1",
            "retention.ms": "604800000",
        }
        changes = {
            "setup_topic_partitions": 6,
            "max_record_bytes": 2_000_000,
            "setup_topic_retention_days": 2.0,
            "setup_topic_min_insync_replicas": 2,
        }
        changed = first.model_copy(update=changes)
        ensure_topic(changed)
        limits_then = {"max.message.bytes": "2065536", "min.insync.replicas": "2", "retention.ms": "172800000"}
        assert wait_until(lambda: (partitions(changed), limits(changed)) == (6, limits_then), within=10.0)

    @pytest.mark.apache
    @pytest.mark.java
    async def test_a_record_of_the_largest_size_is_taken(self, settings: Settings, apache: Broker) -> None:
        """The topic's own limit lies above that of `publish`, which counts headers and all."""
        own = with_topic(settings, kafka_bootstrap_servers=apache.bootstrap)
        ensure_topic(own)
        frame = encode_kafka(an_event(payload={"text": ""})).size
        largest = encode_kafka(an_event(payload={"text": "x" * (own.max_record_bytes - frame)}))
        assert own.max_record_bytes - 10 <= largest.size <= own.max_record_bytes
        sender = Sender(own)
        assert await sender.send([largest]) == [None]
        sender.close(0.0)


def with_topic(settings: Settings, **changes: object) -> Settings:
    """The settings with a topic that isn't there yet."""
    return settings.model_copy(update={"kafka_topic": f"{settings.kafka_topic}.new", **changes})


def partitions(settings: Settings) -> int:
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        return len(admin.describe_topics([settings.kafka_topic])[0]["partitions"])


def limits(settings: Settings) -> dict[str, str]:
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        described = admin.describe_configs([ConfigResource("TOPIC", settings.kafka_topic)])
    return {name: entry["value"] for name, entry in described["topic"][settings.kafka_topic].items() if name in LIMITS}


class TestRetention:
    @pytest.mark.guarantee("G5")
    async def test_only_an_event_with_an_expiry_is_removed(self, database: Database) -> None:
        """The server's own monitor removes what is due, and lets alone whatever has a mark in place of a date."""
        repository, kept, due = EventRepository(database), an_event(), an_event()
        await accept(database, kept, due)
        await Outbox(database).confirm([due.event_id], timedelta(0))

        async def gone() -> bool:
            return await repository.get(due.event_id) is None

        await eventually(gone, within=60.0)
        assert await repository.get(kept.event_id) == kept

    @pytest.mark.guarantee("G3")
    async def test_the_log_has_no_index_that_removes_anything(self, database: Database) -> None:
        indexes = await database["event_store"].index_information()
        assert not any("expireAfterSeconds" in index for index in indexes.values())

    async def test_the_log_is_compressed_by_zstd(self, database: Database) -> None:
        stats = await database.command("collStats", "event_store")
        assert "block_compressor=zstd" in stats["wiredTiger"]["creationString"]


@contextmanager
def as_user(stack: Stack, name: str, function: str, password: str) -> Iterator[Any]:
    """The database, for that user."""
    assert stack.mongo is not None
    uri = stack.mongo.uri_for(function, password, name)
    with MongoClient[dict[str, Any]](uri, uuidRepresentation="standard") as client:
        yield client[name]


@pytest.fixture(params=sorted(ROLES))
def as_function(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Any]:
    """The shared stack's database, for the user of a function."""
    uri = stack.function_environment(request.param)["MONGODB_URI"]
    with MongoClient[dict[str, Any]](uri, uuidRepresentation="standard") as client:
        yield client[stack.database]


@pytest.fixture(scope="module")
def logged(flow: View) -> Event:
    """An event that is in the log."""
    event = an_event()
    flow.publish(event)
    assert flow.arrive([event])
    return event


Command = Callable[[Any], object]
REMOVER = ("admin", "events")

CHANGES: dict[str, Command] = {
    "update_one": lambda db: db.event_store.update_one({}, {"$set": {"payload": {}}}),
    "update_many": lambda db: db.event_store.update_many({}, [{"$set": {"payload": {}}}]),
    "replace": lambda db: db.event_store.replace_one({}, {"payload": {}}),
    "upsert": lambda db: db.event_store.update_one({"_id": 1}, {"$set": {"payload": {}}}, upsert=True),
    "find_and_modify": lambda db: db.event_store.find_one_and_update({}, {"$set": {"payload": {}}}),
    "delete_one": lambda db: db.event_store.delete_one({}),
    "delete_many": lambda db: db.event_store.delete_many({}),
    "find_and_remove": lambda db: db.event_store.find_one_and_delete({}),
    "drop": lambda db: db.command("drop", "event_store"),
    "drop_database": lambda db: db.command("dropDatabase"),
    "rename": lambda db: db.client.admin.command(
        "renameCollection", f"{db.name}.event_store", to=f"{db.name}.other", dropTarget=True
    ),
    "make_it_expire": lambda db: db.command("collMod", "event_store", index={"name": "feed", "expireAfterSeconds": 1}),
    "add_an_expiring_index": lambda db: db.event_store.create_index("stored_at", expireAfterSeconds=1),
    "drop_an_index": lambda db: db.event_store.drop_index("feed"),
    "cap": lambda db: db.command("convertToCapped", "event_store", size=4096),
    "overwrite": lambda db: db.events.aggregate([{"$out": "event_store"}]),
    "merge": lambda db: db.events.aggregate([{"$merge": {"into": "event_store", "whenMatched": "replace"}}]),
    "bypass_validation": lambda db: db.command("collMod", "event_store", validator={}),
    "grant_itself_more": lambda db: db.command("grantRolesToUser", "store", roles=["dbOwner"]),
}


class TestRights:
    @pytest.mark.guarantee("G3", "R33")
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_the_server_refuses_every_change_of_the_log(
        self, as_function: Any, flow: View, logged: Event, change: Command
    ) -> None:
        """Code 13, Unauthorized, to each function's own user; and the log is as it was."""
        before = flow.document("event_store", logged)
        with pytest.raises(OperationFailure) as refused:
            change(as_function)
        assert refused.value.code == 13
        assert before is not None
        assert flow.document("event_store", logged) == before

    @pytest.mark.guarantee("G3", "R33")
    @pytest.mark.parametrize("function", sorted(set(ROLES) - {"store"}))
    def test_none_but_store_may_add_to_the_log(self, stack: Stack, function: str) -> None:
        uri = stack.function_environment(function)["MONGODB_URI"]
        with MongoClient[dict[str, Any]](uri) as client, pytest.raises(OperationFailure) as refused:
            client[stack.database].event_store.insert_one({"_id": 1})
        assert refused.value.code == 13

    @pytest.mark.guarantee("G3")
    def test_no_role_gives_more_than_insert_and_find_in_the_log(self) -> None:
        for grants in ROLES.values():
            assert set(grants.get("event_store", ())) <= {"find", "insert"}

    @pytest.mark.guarantee("G1", "G5")
    def test_no_role_but_admins_may_remove_anything(self) -> None:
        """An event that isn't in the log must not be deleted, and one that is goes by the server's own monitor.

        `admin` looks first, and archives what it removes (tests/contract/test_archive.py).
        """
        for function, grants in ROLES.items():
            for collection, actions in grants.items():
                may = {"find", "changeStream", "insert", "update"}
                may |= {"remove"} if (function, collection) == REMOVER else set()
                assert set(actions) <= may, (function, collection)

    @pytest.mark.guarantee("G3", "R33")
    def test_audit_can_read_the_log_and_nothing_else(self) -> None:
        assert ROLES["audit"] == {"event_store": ("find",)}

    @pytest.mark.guarantee("G3")
    def test_nobody_may_change_or_empty_the_archive(self) -> None:
        assert all(set(grants.get("archive", ())) <= {"find", "insert"} for grants in ROLES.values())

    @pytest.mark.guarantee("G3")
    def test_publish_cannot_take_back_what_it_published(self, stack: Stack) -> None:
        """Not even in `events`: it may insert and look."""
        uri = stack.function_environment("publish")["MONGODB_URI"]
        with MongoClient[dict[str, Any]](uri) as client:
            events = client[stack.database].events
            with pytest.raises(OperationFailure) as refused:
                events.delete_many({})
            assert refused.value.code == 13
            with pytest.raises(OperationFailure) as refused:
                events.update_many({}, {"$set": {"payload": {}}})
            assert refused.value.code == 13

    def test_a_user_knows_no_other_database(self, as_function: Any) -> None:
        with pytest.raises(OperationFailure) as refused:
            as_function.client.other.events.find_one()
        assert refused.value.code == 13

    async def test_a_function_without_its_user_gets_nowhere(self, stack: Stack) -> None:
        """MongoDB asks for a user: without one, a function has no way round the roles."""
        assert stack.mongo is not None
        nobody = settings_of(stack, mongodb_uri=SecretStr(f"mongodb://{stack.mongo.hosts}/?replicaSet=twofold"))
        async with open_database(nobody, "tests") as database:
            with pytest.raises(Unavailable):
                await EventStore(database).known([an_event().event_id])
