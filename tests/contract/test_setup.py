"""`twofold.setup` with real servers, and the permissions of each function's database user."""

import asyncio
import json
import re
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

from dev.paths import ROOT
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

PASSWORDS = {function: f"password of {function}" for function in ROLES}


async def state(database: Database) -> dict[str, Any]:
    """Return all indexes, users and roles of the database."""
    users = await database.command("usersInfo", showPrivileges=False)
    roles = await database.command("rolesInfo", 1, showPrivileges=True)
    return {
        "indexes": {name: await database[name].index_information() for name in COLLECTIONS},
        "users": {user["user"]: user["roles"] for user in users["users"]},
        "roles": {role["role"]: role["privileges"] for role in roles["roles"]},
    }


@pytest.fixture
async def with_users(settings: Settings, database: Database) -> AsyncIterator[Settings]:
    """Return the settings of a database with a user for every function."""
    await set_up(settings, PASSWORDS)
    yield settings
    await database.command("dropAllUsersFromDatabase")
    await database.command("dropAllRolesFromDatabase")


def role_in_docs(database: str) -> dict[str, Any]:
    """Return the definition of set-up's role in docs/deploy.md, for this database."""
    text = (ROOT / "docs/deploy.md").read_text()
    found = re.search(r'createRole\(\{role: "twofold_setup",(.*?)\}\)\n', text, re.DOTALL)
    assert found is not None
    members = re.sub(r"(\w+):", r'"\1":', found[1]).replace('"twofold"', f'"{database}"')
    definition: dict[str, Any] = json.loads("{" + members + "}")
    return definition


class TestIdempotence:
    async def test_a_second_run_changes_nothing(self, with_users: Settings, database: Database) -> None:
        before = await state(database)
        await set_up(with_users, PASSWORDS)
        assert await state(database) == before

    async def test_set_up_creates_all_indexes_and_users(self, with_users: Settings, database: Database) -> None:
        made = await state(database)
        for name, indexes in INDEXES.items():
            assert {"_id_", *(index.document["name"] for index in indexes)} == set(made["indexes"][name])
        assert set(made["users"]) == set(ROLES)
        assert made["users"]["store"] == [{"role": "twofold_store", "db": with_users.mongodb_database}]

    async def test_overlapping_runs_on_a_new_database_succeed(self, settings: Settings, database: Database) -> None:
        """The Jobs of two releases may overlap."""
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

    async def test_a_second_run_keeps_the_events(self, with_users: Settings, database: Database) -> None:
        event = an_event()
        await log(database, event)
        await set_up(with_users, PASSWORDS)
        assert await EventStore(database).get(event.event_id) == event

    async def test_an_index_may_take_longer_to_build_than_any_other_operation(
        self, settings: Settings, database: Database
    ) -> None:
        """An index over millions of restored events takes long."""
        impatient = settings.model_copy(update={"mongodb_timeout_s": 1.0})
        slow: dict[str, Any] = {"failCommands": ["createIndexes"], "blockConnection": True, "blockTimeMS": 1500}
        async with failing(database, "setup", **slow):
            assert await set_up(impatient, {})

    async def test_set_up_removes_added_permissions(self, with_users: Settings, database: Database) -> None:
        """An administrator or an older release may have added them."""
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

    async def test_a_missing_permission_is_named(self, with_users: Settings, stack: Stack) -> None:
        """The user is the operator. The driver's error is an `OperationFailure` for every refused action."""
        assert stack.mongo is not None
        uri = stack.mongo.uri_for("operator", PASSWORDS["operator"], with_users.mongodb_database)
        as_operator = with_users.model_copy(update={"mongodb_uri": SecretStr(uri)})
        with pytest.raises(
            Unavailable, match=r"may not create the collection event_store: .* run the Job `setup` again"
        ):
            await set_up(as_operator, {})

    @pytest.mark.fault("D7")
    async def test_the_user_of_docs_deploy_may_do_all_of_set_up(
        self, settings: Settings, database: Database, stack: Stack
    ) -> None:
        """docs/deploy.md has the commands that make this user."""
        assert stack.mongo is not None
        name = f"setup_{settings.mongodb_database}"
        admin = database.client["admin"]
        await admin.command("createRole", name, **role_in_docs(settings.mongodb_database))
        await admin.command("createUser", name, pwd="secret", roles=[name])
        try:
            uri = stack.mongo.uri_for(name, "secret", "admin")
            as_setup = settings.model_copy(update={"mongodb_uri": SecretStr(uri)})
            await database.client.drop_database(settings.mongodb_database)
            for _ in range(2):
                assert await set_up(as_setup, PASSWORDS)
        finally:
            await admin.command("dropUser", name)
            await admin.command("dropRole", name)
            await database.command("dropAllUsersFromDatabase")
            await database.command("dropAllRolesFromDatabase")

    async def test_patient_set_up_tries_again(self, settings: Settings, database: Database) -> None:
        """In a first deployment MongoDB starts at the same time."""
        refused: dict[str, Any] = {"failCommands": ["createIndexes"], "errorCode": 91}  # ShutdownInProgress
        async with failing(database, "setup", times=3, **refused):
            with pytest.raises(Unavailable):
                await set_up_patiently(settings, {}, patience_s=0.0)
            assert await set_up_patiently(settings, {}, patience_s=60.0, pause_s=0.01)

    async def test_without_passwords_there_are_no_users(self, settings: Settings, database: Database) -> None:
        """A MongoDB without access control needs no users."""
        assert (await state(database))["users"] == {}

    def test_passwords_come_from_the_environment(self) -> None:
        given = {"MONGODB_PASSWORD_STORE": "secret", "MONGODB_PASSWORD_RELAY": "", "OTHER": "x"}
        assert passwords_in(given) == {"store": "secret"}


LIMITS = {"max.message.bytes", "min.insync.replicas", "retention.ms"}


class TestTopic:
    def test_the_topic_has_the_partitions_of_the_settings(self, settings: Settings) -> None:
        ensure_topic(own := with_topic(settings, setup_topic_partitions=3))
        assert wait_until(lambda: partitions(own) == 3, within=10.0)  # Apache Kafka's brokers see it later

    def test_partitions_are_never_removed(self, settings: Settings) -> None:
        ensure_topic(settings.model_copy(update={"setup_topic_partitions": 1}))
        assert partitions(settings) == 4

    @pytest.mark.slow
    async def test_an_unavailable_broker_gives_an_error_that_names_kafka(self, settings: Settings) -> None:
        with pytest.raises(Unavailable, match="Kafka"):
            await set_up(without_kafka(settings), {})

    @pytest.mark.apache
    @pytest.mark.java
    def test_an_existing_topic_is_adjusted(self, settings: Settings, apache: Broker) -> None:
        """Tansu accepts these settings and forgets them, so this test needs Apache Kafka."""
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
        new_limits = {"max.message.bytes": "2065536", "min.insync.replicas": "2", "retention.ms": "172800000"}
        assert wait_until(lambda: (partitions(changed), limits(changed)) == (6, new_limits), within=10.0)

    @pytest.mark.apache
    @pytest.mark.java
    async def test_a_record_of_the_largest_size_is_accepted(self, settings: Settings, apache: Broker) -> None:
        """The limit of the topic is above the limit of `publish`, which counts headers too."""
        own = with_topic(settings, kafka_bootstrap_servers=apache.bootstrap)
        ensure_topic(own)
        frame = encode_kafka(an_event(payload={"text": ""})).size
        largest = encode_kafka(an_event(payload={"text": "x" * (own.max_record_bytes - frame)}))
        assert own.max_record_bytes - 10 <= largest.size <= own.max_record_bytes
        sender = Sender(own)
        assert await sender.send([largest]) == [None]
        sender.close(0.0)


def with_topic(settings: Settings, **changes: object) -> Settings:
    """Return the settings with a topic that does not exist."""
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
        """MongoDB's TTL monitor removes the due event, and keeps the event with an outbox entry."""
        repository, kept, due = EventRepository(database), an_event(), an_event()
        await accept(database, kept, due)
        await Outbox(database).confirm([due.event_id], timedelta(0))

        async def gone() -> bool:
            return await repository.get(due.event_id) is None

        await eventually(gone, within=60.0)
        assert await repository.get(kept.event_id) == kept

    @pytest.mark.guarantee("G3")
    async def test_the_log_has_no_ttl_index(self, database: Database) -> None:
        indexes = await database["event_store"].index_information()
        assert not any("expireAfterSeconds" in index for index in indexes.values())

    async def test_the_log_is_compressed_with_zstd(self, database: Database) -> None:
        stats = await database.command("collStats", "event_store")
        assert "block_compressor=zstd" in stats["wiredTiger"]["creationString"]


@contextmanager
def as_user(stack: Stack, name: str, function: str, password: str) -> Iterator[Any]:
    """Connect to the database as this user."""
    assert stack.mongo is not None
    uri = stack.mongo.uri_for(function, password, name)
    with MongoClient[dict[str, Any]](uri, uuidRepresentation="standard") as client:
        yield client[name]


@pytest.fixture(params=sorted(ROLES))
def as_function(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Any]:
    """Connect to the shared stack's database as the user of a function."""
    uri = stack.function_environment(request.param)["MONGODB_URI"]
    with MongoClient[dict[str, Any]](uri, uuidRepresentation="standard") as client:
        yield client[stack.database]


@pytest.fixture(scope="module")
def logged(flow: View) -> Event:
    """Publish an event, and return it when the log has it."""
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


class TestPermissions:
    @pytest.mark.guarantee("G3", "R33")
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_mongodb_refuses_every_change_of_the_log(
        self, as_function: Any, flow: View, logged: Event, change: Command
    ) -> None:
        """Every function's user gets code 13, Unauthorized, and the log stays unchanged."""
        before = flow.document("event_store", logged)
        with pytest.raises(OperationFailure) as refused:
            change(as_function)
        assert refused.value.code == 13
        assert before is not None
        assert flow.document("event_store", logged) == before

    @pytest.mark.guarantee("G3", "R33")
    @pytest.mark.parametrize("function", sorted(set(ROLES) - {"store"}))
    def test_only_store_may_insert_into_the_log(self, stack: Stack, function: str) -> None:
        uri = stack.function_environment(function)["MONGODB_URI"]
        with MongoClient[dict[str, Any]](uri) as client, pytest.raises(OperationFailure) as refused:
            client[stack.database].event_store.insert_one({"_id": 1})
        assert refused.value.code == 13

    @pytest.mark.guarantee("G3")
    def test_no_role_allows_more_than_insert_and_find_in_the_log(self) -> None:
        for grants in ROLES.values():
            assert set(grants.get("event_store", ())) <= {"find", "insert"}

    @pytest.mark.guarantee("G1", "G5")
    def test_only_admin_may_remove_documents(self) -> None:
        """MongoDB's TTL monitor removes confirmed events.

        `admin` checks the log and archives an event before it removes the event (tests/contract/test_archive.py).
        """
        for function, grants in ROLES.items():
            for collection, actions in grants.items():
                allowed = {"find", "changeStream", "insert", "update"}
                allowed |= {"remove"} if (function, collection) == REMOVER else set()
                assert set(actions) <= allowed, (function, collection)

    @pytest.mark.guarantee("G3", "R33")
    def test_audit_can_only_read_the_log(self) -> None:
        assert ROLES["audit"] == {"event_store": ("find",), "checkpoints": ("find",)}

    @pytest.mark.guarantee("G3")
    def test_no_role_may_change_or_empty_the_archive(self) -> None:
        assert all(set(grants.get("archive", ())) <= {"find", "insert"} for grants in ROLES.values())

    @pytest.mark.guarantee("G3")
    def test_publish_cannot_change_or_remove_published_events(self, stack: Stack) -> None:
        uri = stack.function_environment("publish")["MONGODB_URI"]
        with MongoClient[dict[str, Any]](uri) as client:
            events = client[stack.database].events
            with pytest.raises(OperationFailure) as refused:
                events.delete_many({})
            assert refused.value.code == 13
            with pytest.raises(OperationFailure) as refused:
                events.update_many({}, {"$set": {"payload": {}}})
            assert refused.value.code == 13

    def test_a_user_cannot_read_another_database(self, as_function: Any) -> None:
        with pytest.raises(OperationFailure) as refused:
            as_function.client.other.events.find_one()
        assert refused.value.code == 13

    async def test_a_connection_without_a_user_is_refused(self, stack: Stack) -> None:
        assert stack.mongo is not None
        anonymous = settings_of(stack, mongodb_uri=SecretStr(f"mongodb://{stack.mongo.hosts}/?replicaSet=twofold"))
        async with open_database(anonymous, "tests") as database:
            with pytest.raises(Unavailable):
                await EventStore(database).known([an_event().event_id])
