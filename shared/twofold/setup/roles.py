"""The database roles: the collections that a function may read and write.

Every function has a MongoDB user of its own with the role `twofold_<function>`. MongoDB refuses an action outside the
role, so a mistake in a function's code cannot change the log: no role can update or delete in `event_store`, and only
`store` can insert there.
"""

from collections.abc import Mapping

READ = ("find",)
WATCH = ("find", "changeStream")
APPEND = ("find", "insert")
UPDATE = ("find", "update")
CHANGE = ("find", "insert", "update")
DELETE = ("find", "remove")

ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "publish": {"events": APPEND, "event_store": READ},
    "store": {"event_store": APPEND, "dead_letters": CHANGE},
    "relay": {
        "events": UPDATE,
        "event_store": READ,
        "dead_letters": CHANGE,
        "locks": CHANGE,
        "checkpoints": APPEND,
    },
    "dead_letters": {"dead_letters": CHANGE},
    "admin": {"events": DELETE, "event_store": READ, "archive": APPEND},
    "audit": {"event_store": READ, "checkpoints": READ},
    "query": {"events": WATCH},
    "pod_events": {
        "events": APPEND,
        "event_store": READ,
        "dead_letters": CHANGE,
        "locks": CHANGE,
        "pod_state": CHANGE,
    },
    "operator": {
        "events": CHANGE,
        "event_store": READ,
        "dead_letters": CHANGE,
        "archive": READ,
        "locks": CHANGE,
        "checkpoints": APPEND,
    },
}
"""The allowed actions by function and collection. `operator` is the user of the command line `twofold`."""


def passwords_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the passwords in `MONGODB_PASSWORD_<FUNCTION>` by function. A function without a password gets no user."""
    passwords = {function: environ.get(f"MONGODB_PASSWORD_{function.upper()}") for function in ROLES}
    return {function: password for function, password in passwords.items() if password}
