"""The options of a stack."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dev.stack.functions import FUNCTIONS


@dataclass(frozen=True)
class Options:
    """The parts of a stack. The defaults are the smallest stack that publishes, stores and relays."""

    members: int = 1
    """mongod servers in the replica set: 1 or 3."""
    auth: bool = False
    """True for a MongoDB with access control. Each function then has a user with the permissions that setup grants."""
    set_parameters: Mapping[str, str | int] = field(default_factory=dict)
    """mongod's parameters: `{"ttlMonitorSleepSecs": 2}`."""
    broker: str = "tansu"
    """`tansu`, `apache` or `testcontainers`."""
    mongodb_image: str | None = None
    """An image such as `mongo:8.0` to run in containers, in place of the wheel's mongod."""
    mongodb_uri: str | None = None
    """An external MongoDB, in place of the stack's own. The stack creates a new database there and leaves it."""
    kafka_bootstrap: str | None = None
    """An external Kafka, in place of the stack's own. The stack creates a new topic there and leaves it."""
    with_functions: tuple[str, ...] = FUNCTIONS
    workers: int = 1
    """Worker processes of each function."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More settings for setup and every function: `{"RELAY_FIRST_LOOK_S": "2"}`."""
    function_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More settings by function name. They win over `settings`."""
    source_arguments: tuple[str, ...] = ()
    """More arguments for the KafkaSource stand-in: `("--retry", "3")`. The stack has a source if it has `store`."""
    relay_every_s: float | None = None
    """Seconds between the timer's events for `relay`. Without a timer, relay runs when a request comes."""
    pod_lives: bool = False
    """True to send the pods' lives of `tests/fixtures/pods` to `pod_events` once, by an ApiServerSource stand-in."""
    kubeconfig: Path | None = None
    """A real Kubernetes API server: the stand-in watches its pods in place of `pod_lives`, `pod_events` lists them."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Fixed ports by `mongod` (the first member), `kafka`, `issuer` or a function's name. Default: free ports."""
    logs: Path | None = None
    """The folder of the logs. Without it, logs go to a temporary folder, which stays only after a failed start."""
