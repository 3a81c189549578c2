"""Create everything the functions need: collections, indexes, roles, users and the topic.

Set-up can run any number of times, and several runs can overlap. In the cluster, set-up is a Job. Its MongoDB user
has more permissions than any function.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pymongo.errors import OperationFailure

from twofold.errors import Unavailable
from twofold.kafka.topic import ensure_topic
from twofold.mongo.client import Database, driver_errors, open_database, time_limit
from twofold.mongo.failures import driver_failure
from twofold.settings import SetupSettings
from twofold.setup.collections import COLLECTIONS, INDEXES
from twofold.setup.roles import ROLES

PAUSE_S = 5.0
"""Seconds between two tries of `set_up_patiently`."""

LONGEST_BUILD_S = 24 * 3600.0
"""The longest time in seconds for the indexes of a collection. After a restore, an index covers millions of events."""

# error codes of MongoDB 6.0
_UNAUTHORIZED = 13
_NAMESPACE_EXISTS = 48
_ROLE_EXISTS = 51002
_USER_EXISTS = 51003


async def set_up(settings: SetupSettings, passwords: Mapping[str, str]) -> list[str]:
    """Create or correct everything, and return a line for every collection, index, role, user and topic.

    `passwords` has a password for every user, by the function's name. Without passwords, set-up makes neither roles
    nor users. Raises `Unavailable` when MongoDB or Kafka is unavailable or refuses an action. If MongoDB's user lacks
    a permission, the error names the forbidden action.
    """
    done: list[str] = []
    async with open_database(settings, "setup") as database:
        with driver_errors():
            for name, options in COLLECTIONS.items():
                with _permission_to(f"create the collection {name}"):
                    await _ensure_collection(database, name, options)
                done.append(f"collection {name}")
            for name, indexes in INDEXES.items():
                with time_limit(LONGEST_BUILD_S), _permission_to(f"create indexes of {name}"):
                    built = await database[name].create_indexes(indexes)
                done += [f"index {name}.{index}" for index in built]
            if passwords:
                for function, grants in ROLES.items():
                    with _permission_to(f"create the role twofold_{function}"):
                        await _ensure_role(database, function, grants)
                    done.append(f"role {function}")
            for function, password in passwords.items():
                with _permission_to(f"create the user {function}"):
                    await _ensure_user(database, function, password)
                done.append(f"user {function}")
    await asyncio.to_thread(ensure_topic, settings)
    return [*done, f"topic {settings.kafka_topic}"]


async def set_up_patiently(
    settings: SetupSettings, passwords: Mapping[str, str], patience_s: float, pause_s: float = PAUSE_S
) -> list[str]:
    """Call `set_up` again for up to `patience_s` seconds while it raises `Unavailable`: the servers may be starting.

    Raises the error of the last try.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    while True:
        try:
            return await set_up(settings, passwords)
        except Unavailable as error:
            if loop.time() + pause_s >= until:
                raise
            line = f"set-up failed, next try in {pause_s:g} s: {error.diagnosis or error.detail}"
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the progress of a command
        await asyncio.sleep(pause_s)


@contextmanager
def _permission_to(action: str) -> Iterator[None]:
    """Raise `Unavailable` with the name of the `action` when MongoDB's user may not do it."""
    try:
        yield
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
        raise Unavailable(
            f"MongoDB's user may not {action}: set-up needs permissions that neither a function's user nor the "
            "operator has. In the cluster, run the Job `setup` again (docs/deploy.md)"
        ) from driver_failure(error)


async def _ensure_collection(database: Database, name: str, options: dict[str, Any]) -> None:
    try:
        await database.create_collection(name, check_exists=False, **options)
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise


async def _ensure_role(database: Database, function: str, grants: Mapping[str, tuple[str, ...]]) -> None:
    privileges = [
        {"resource": {"db": database.name, "collection": collection}, "actions": list(actions)}
        for collection, actions in grants.items()
    ]
    await _create_or_update(
        database, "Role", f"twofold_{function}", {"privileges": privileges, "roles": []}, _ROLE_EXISTS
    )


async def _ensure_user(database: Database, function: str, password: str) -> None:
    definition = {"pwd": password, "roles": [f"twofold_{function}"]}
    await _create_or_update(database, "User", function, definition, _USER_EXISTS)


async def _create_or_update(database: Database, kind: str, name: str, definition: dict[str, Any], exists: int) -> None:
    try:
        await database.command(f"create{kind}", name, **definition)
    except OperationFailure as error:
        if error.code != exists:
            raise
        await database.command(f"update{kind}", name, **definition)
