"""The stack as one context manager: servers, setup, functions, KafkaSource, timer; all gone at the end."""

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from dev import preflight
from dev.broker import Broker, create
from dev.functions import FUNCTIONS, FunctionProcess, plain_environment
from dev.issuer import Issuer, token
from dev.mongod import ReplicaSet, mongod_binary
from dev.paths import ROOT
from dev.processes import Child, StartFailed, free_port, terminate_all
from dev.remote_kafka import ExternalBroker
from dev.signals import signals_ignored, sigterm_exits
from twofold.setup.roles import ROLES

SETUP_WITHIN_S = 90.0


@dataclass(frozen=True)
class Options:
    """What the stack is made of. The defaults are the smallest one that does the main job."""

    members: int = 1
    """mongod processes in the replica set: 1 or 3."""
    auth: bool = False
    """Whether MongoDB checks users. Each function then has its own, with the rights that setup gives it."""
    set_parameters: Mapping[str, str | int] = field(default_factory=dict)
    """mongod's parameters: `{"ttlMonitorSleepSecs": 2}`."""
    broker: str = "tansu"
    """`tansu`, `apache` or `testcontainers`."""
    mongodb_uri: str | None = None
    """A MongoDB that somebody else runs, in place of ours. The stack takes a new database there, for good."""
    kafka_bootstrap: str | None = None
    """A Kafka that somebody else runs, in place of ours. The stack takes a new topic there, for good."""
    tokens: bool = True
    """Whether functions that people reach ask for tokens, of an issuer that the stack has; else AUTH=off."""
    with_functions: tuple[str, ...] = FUNCTIONS
    workers: int = 1
    """Worker processes of each function."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More settings for setup and every function: `{"RELAY_FIRST_LOOK_S": "2"}`."""
    function_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More settings for one function, by its name; they win over `settings`."""
    source: bool = True
    """Whether a KafkaSource stand-in delivers to `store`."""
    ordering: Literal["unordered", "ordered"] = "unordered"
    source_arguments: tuple[str, ...] = ()
    """More arguments for the KafkaSource stand-in: `("--retry", "3")`."""
    relay_every_s: float | None = None
    """Seconds between the timer's events for `relay`; without it, relay runs when it is called."""
    pod_lives: bool = False
    """Whether an ApiServerSource stand-in sends the lives of pods in `tests/fixtures/pods` to `pod_events`, once."""
    kubeconfig: Path | None = None
    """A Kubernetes API server whose pods the stand-in watches in place of that, and `pod_events` lists."""
    list_every_s: float = 10.0
    """Seconds between the timer's events for `pod_events`, with a `kubeconfig`."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Fixed ports, by `mongod` (the first member's), `kafka`, `issuer`, or a function's name; else free ones."""
    logs: Path | None = None
    """Where logs go and stay. Without it, to a temporary folder that stays only if the start failed."""


class Stack:
    """Everything that the main job needs, running, from `with Stack(...) as stack` to its end.

    Nothing outlives the block: not on an exception, not on Ctrl-C or SIGTERM, not when the start fails
    half-way. If this process is killed, its children end by themselves, and only the temporary data stays.
    """

    def __init__(self, options: Options | None = None, *, on_step: Callable[[str], None] = lambda _: None) -> None:
        self.options = options or Options()
        self._on_step = on_step
        self._undo = contextlib.ExitStack()
        self._signals = contextlib.ExitStack()
        self._failed = False
        fresh = f"{datetime.now(UTC):%Y%m%d%H%M%S}_{secrets.token_hex(3)}"
        self.database = f"twofold_{fresh}" if self.options.mongodb_uri else "twofold"
        self.topic = f"twofold.events.{fresh}" if self.options.kafka_bootstrap else "twofold.events"
        self.consumer_group = f"twofold-store-{fresh}" if self.options.kafka_bootstrap else "twofold-store"
        self.mongo: ReplicaSet | None = None
        self.broker: Broker
        self.issuer: Issuer | None = None
        self.functions: dict[str, FunctionProcess] = {}
        self.source: Child | None = None
        self.logs: Path
        self._passwords = {name: secrets.token_hex(12) for name in {*ROLES, *self.options.with_functions}}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._failed = True
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End and remove everything, last started first. A signal that comes meanwhile is ignored."""
        with signals_ignored():
            self._undo.close()
        self._signals.close()

    @property
    def mongodb_uri(self) -> str:
        """MongoDB for a client that may do anything."""
        return self.mongo.uri if self.mongo else self.options.mongodb_uri or ""

    @property
    def kafka(self) -> str:
        """Kafka's bootstrap servers."""
        return self.broker.bootstrap

    @property
    def publish_url(self) -> str:
        """Where events are posted."""
        return self.functions["publish"].url

    @property
    def store_url(self) -> str:
        """The sink of the KafkaSource."""
        return self.functions["store"].url

    @property
    def relay_url(self) -> str:
        """The sink of relay's timer."""
        return self.functions["relay"].url

    @property
    def pod_events_url(self) -> str:
        """The sink of an ApiServerSource."""
        return self.functions["pod_events"].url

    @property
    def token(self) -> str | None:
        """A bearer token that lets a service do everything; None if the functions ask for none."""
        return token() if self.issuer else None

    @property
    def environment(self) -> dict[str, str]:
        """The settings that setup runs with, and that a test may give to the library: root's, with `auth`."""
        return {
            "MONGODB_URI": self.mongodb_uri,
            "MONGODB_DATABASE": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_CONSUMER_GROUP": self.consumer_group,
            "PODS_SELECTOR": "",  # all pods of a cluster that is named
            **(self.issuer.settings if self.issuer else {"AUTH": "off"}),
            **self.options.settings,
        }

    def function_environment(self, name: str) -> dict[str, str]:
        """The settings of one function; with `auth`, the URI of the function's own user."""
        user = {}
        if self.mongo and self.options.auth:
            user = {"MONGODB_URI": self.mongo.uri_for(name, self._passwords[name], self.database)}
        cluster = {"KUBECONFIG": str(self.options.kubeconfig)} if self.options.kubeconfig else {}
        return self.environment | user | cluster | dict(self.options.function_settings.get(name, {}))

    def setup(self) -> None:
        """Run `twofold.setup` as its Job in the cluster does. Raises `StartFailed` with what it said."""
        passwords = {f"MONGODB_PASSWORD_{name.upper()}": word for name, word in self._passwords.items()}
        log = self.logs / "setup.log"
        with log.open("ab") as output:
            run = subprocess.run(
                [sys.executable, "-m", "twofold.setup"],
                env=plain_environment() | self.environment | (passwords if self.options.auth else {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=SETUP_WITHIN_S,
                check=False,
            )
        if run.returncode != 0:
            raise StartFailed(f"twofold.setup ended with {run.returncode}\n{log.read_text()[-3000:]}")

    def restart_broker(self) -> None:
        """Restart the broker at its address, and set the topic up again if the broker forgot it."""
        self.broker.restart()
        if not self.broker.keeps_log:
            self.setup()

    def new_source(self, *arguments: str, name: str = "kafka_source", group: str | None = None) -> Child:
        """The KafkaSource of knative/base, with retries for minutes, not days; it ends with the stack.

        Not started. `arguments` win over the usual ones; `name` is its process's and its log's.
        """
        source = self._module(
            "dev.kafka_source",
            *("--bootstrap-servers", self.kafka, "--topic", self.topic, "--group", group or self.consumer_group),
            *("--sink", self.store_url, "--name", "store", "--ordering", self.options.ordering),
            *("--initial-offset", "earliest", "--session-timeout-ms", "6000", "--commit-every", "5"),
            *("--retry", "300", "--backoff-policy", "linear", "--backoff-delay", "0.2", "--timeout", "30"),
            *self._dead_letter_sink(),
            *self.options.source_arguments,
            *arguments,
            name=name,
            ready=lambda child: child.printed("ready"),
        )
        self._undo.callback(source.terminate, 5.0)
        return source

    def _start(self) -> None:
        self._signals.enter_context(sigterm_exits())
        self.logs = self._make_logs()
        data = Path(tempfile.mkdtemp(prefix="twofold-"))
        self._undo.callback(shutil.rmtree, data, ignore_errors=True)
        self._start_servers(data)
        if self.options.tokens:
            self._start_issuer()
        self._on_step("setting up collections, indexes, users and the topic")
        self.setup()
        self._start_functions()
        self._start_timers()
        self._start_pod_source()
        self._on_step("ready")

    def _make_logs(self) -> Path:
        if self.options.logs:
            self.options.logs.mkdir(parents=True, exist_ok=True)
            return self.options.logs
        logs = Path(tempfile.mkdtemp(prefix="twofold-logs-"))
        self._undo.callback(self._remove_logs, logs)
        return logs

    def _remove_logs(self, logs: Path) -> None:
        if not self._failed:
            shutil.rmtree(logs, ignore_errors=True)

    def _start_servers(self, data: Path) -> None:
        """Both at once; then wait for one after the other."""
        if self.options.mongodb_uri is None:
            self._on_step("checking this machine")
            preflight.check(mongod_binary())
            self._on_step(f"starting mongod ({self.options.members} in the replica set)")
            self.mongo = self._replica_set(data / "mongod")
            self._undo.callback(self.mongo.stop)
            self.mongo.spawn()
        self.broker = self._make_broker(data / "kafka")
        self._on_step(f"starting Kafka ({self.broker.name})")
        self._undo.callback(self.broker.stop)
        self.broker.spawn()
        if self.mongo:
            self.mongo.wait_ready()
        self.broker.wait_ready()

    def _start_issuer(self) -> None:
        self.issuer = Issuer(self.options.ports.get("issuer", 0))
        self._undo.callback(self.issuer.stop)
        self.issuer.start()

    def _replica_set(self, directory: Path) -> ReplicaSet:
        first = self.options.ports.get("mongod")
        return ReplicaSet(
            directory,
            self.logs,
            members=self.options.members,
            auth=self.options.auth,
            set_parameters=self.options.set_parameters,
            ports=tuple(range(first, first + self.options.members)) if first else (),
        )

    def _make_broker(self, directory: Path) -> Broker:
        if self.options.kafka_bootstrap:
            return ExternalBroker(self.options.kafka_bootstrap)
        return create(self.options.broker, directory, self.logs, self.options.ports.get("kafka"))

    def _start_functions(self) -> None:
        """All of them and the KafkaSource at once; then wait for each."""
        children: list[Child] = []
        self._undo.callback(terminate_all, children, 5.0)
        children.extend(self._spawn_function(name) for name in self.options.with_functions)
        if self.options.source and "store" in self.functions:
            self.source = self.new_source()
            self.source.spawn()
            children.append(self.source)
        for child in children:
            self._on_step(f"starting {child.name}")
            child.wait_ready()

    def _spawn_function(self, name: str) -> Child:
        port = self.options.ports.get(name) or free_port()
        env = self.function_environment(name)
        function = FunctionProcess(name, port, env, logs=self.logs, workers=self.options.workers)
        self.functions[name] = function
        function.child.spawn()
        return function.child

    def _dead_letter_sink(self) -> tuple[str, ...]:
        sink = self.functions.get("dead_letters")
        return ("--dead-letter-sink", sink.url) if sink else ()

    def _start_timers(self) -> None:
        if self.options.relay_every_s is not None and "relay" in self.functions:
            self._start_timer("relay", self.options.relay_every_s)
        if self.options.kubeconfig and "pod_events" in self.functions:
            self._start_timer("pod_events", self.options.list_every_s)

    def _start_timer(self, function: str, every_s: float) -> None:
        sink = self.functions[function].url
        arguments = ("--sink", sink, "--name", function, "--every", str(every_s))
        self._run_beside(self._module("dev.ping", *arguments, name=f"ping_{function}"))

    def _start_pod_source(self) -> None:
        """The ApiServerSource of knative/base."""
        if "pod_events" not in self.functions or not (self.options.pod_lives or self.options.kubeconfig):
            return
        watched = self.options.kubeconfig
        arguments = ("--sink", self.functions["pod_events"].url, *(("--kubeconfig", str(watched)) if watched else ()))
        name, module = "api_server_source", "dev.api_server_source"
        ready = (lambda child: child.printed("watching")) if watched else (lambda _: True)
        self._run_beside(self._module(module, *arguments, name=name, ready=ready))

    def _run_beside(self, child: Child) -> None:
        self._undo.callback(child.terminate, 5.0)
        child.start()

    def _module(
        self,
        module: str,
        *arguments: str,
        name: str = "ping",
        ready: Callable[[Child], bool] = lambda _: True,
    ) -> Child:
        """One of this package's own stand-ins, as a process."""
        command = [sys.executable, "-m", module, *arguments]
        log = self.logs / f"{name}.log"
        return Child(name, command, log=log, ready=ready, cwd=ROOT, env=plain_environment())
