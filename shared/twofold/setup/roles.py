"""TODO module."""

from collections.abc import Mapping

READ = ("find",)


APPEND = ("find", "insert")


CHANGE = ("find", "insert", "update")


ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "publish": {"events": APPEND, "event_store": READ},
    "store": {"event_store": APPEND, "dead_letters": CHANGE},
    "relay": {
        "events": ("find", "update"),
        "event_store": READ,
        "dead_letters": CHANGE,
        "locks": CHANGE,
        "checkpoints": APPEND,
    },
    "dead_letters": {"dead_letters": CHANGE},
    "admin": {"events": ("find", "remove"), "event_store": READ, "archive": APPEND},
    "audit": {"event_store": READ},
    "query": {"events": ("find", "changeStream")},
    "pod_events": {
        "events": APPEND,
        "event_store": READ,
        "dead_letters": CHANGE,
        "locks": CHANGE,
        "pod_state": CHANGE,
    },
    "operator": {
        "events": ("find", "insert", "update"),
        "archive": READ,
        "event_store": READ,
        "dead_letters": CHANGE,
        "locks": CHANGE,
        "checkpoints": APPEND,
    },
}
"""What the database lets each function do, and an operator with the CLI. Nobody may change `event_store`."""


def passwords_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The password of each function's user, from `MONGODB_PASSWORD_<FUNCTION>`; those that have none get no user."""
    given = {function: environ.get(f"MONGODB_PASSWORD_{function.upper()}") for function in ROLES}
    return {function: password for function, password in given.items() if password}
