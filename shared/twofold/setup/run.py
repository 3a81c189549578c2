"""Everything that must exist before the functions run: collections, indexes, roles, users, topic.

Idempotent, and safe twice at once. `python -m twofold.setup` runs it with the environment's settings; in the cluster
it is a Job with a user of its own.
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
from twofold.settings import SetupSettings
from twofold.setup.collections import COLLECTIONS, INDEXES
from twofold.setup.roles import ROLES

PAUSE_S = 5.0
"""Between two attempts of a set-up that is patient."""


LONGEST_BUILD_S = 24 * 3600.0
"""How long an index may take: over a collection that was restored, far longer than any other operation."""


_UNAUTHORIZED = 13


_NAMESPACE_EXISTS = 48


_ROLE_EXISTS = 51002


_USER_EXISTS = 51003
"""MongoDB 6.0's error codes: what its user may not do; `create`, `createRole` and `createUser` of what is there."""


async def set_up(settings: SetupSettings, passwords: Mapping[str, str]) -> list[str]:
    """Bring everything to what it should be; returns a line for each thing.

    `passwords` has one for each function that shall have a user of its own, named like the function. Raises
    `Unavailable` when MongoDB or Kafka is away, or refuses; it names the right that MongoDB's user lacks.
    """
    done: list[str] = []
    async with open_database(settings, "setup") as database:
        with driver_errors():
            for name, options in COLLECTIONS.items():
                with _right_to(f"create the collection {name}"):
                    await _ensure_collection(database, name, options)
                done.append(f"collection {name}")
            for name, indexes in INDEXES.items():
                with time_limit(LONGEST_BUILD_S), _right_to(f"create indexes of {name}"):
                    built = await database[name].create_indexes(indexes)
                done += [f"index {name}.{index}" for index in built]
            if passwords:
                for function, grants in ROLES.items():
                    with _right_to(f"create the role twofold_{function}"):
                        await _ensure_role(database, function, grants)
                    done.append(f"role {function}")
            for function, password in passwords.items():
                with _right_to(f"create the user {function}"):
                    await _ensure_user(database, function, password)
                done.append(f"user {function}")
    await asyncio.to_thread(ensure_topic, settings)
    return [*done, f"topic {settings.kafka_topic}"]


async def set_up_patiently(
    settings: SetupSettings, passwords: Mapping[str, str], patience_s: float, pause_s: float = PAUSE_S
) -> list[str]:
    """`set_up`, tried again for so long while MongoDB or Kafka is away, or refuses: they may be starting beside it.

    Raises what the last attempt raised.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    while True:
        try:
            return await set_up(settings, passwords)
        except Unavailable as error:
            if loop.time() + pause_s >= until:
                raise
            print(f"not yet: {error}", file=sys.stderr, flush=True)  # noqa: T201 - for whoever waits for this command
        await asyncio.sleep(pause_s)


@contextmanager
def _right_to(do: str) -> Iterator[None]:
    """Say so where the user of the settings may not `do` it. Raises `Unavailable`."""
    try:
        yield
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
        raise Unavailable(
            f"MongoDB's user may not {do}: set-up needs rights that no function's user has, nor the operator's. "
            "In the cluster it is a Job, to be run again (docs/deploy.md)"
        ) from error


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
