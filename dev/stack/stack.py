"""Start servers, setup, functions, the KafkaSource and timers, and end them all."""

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from dev import preflight
from dev.paths import ROOT
from dev.process.child import Child, StartFailed, free_port, plain_environment, terminate_all
from dev.process.signals import signals_ignored, sigterm_exits
from dev.servers import containers
from dev.servers.broker import Broker, ExternalBroker, create
from dev.servers.issuer import Issuer, token
from dev.servers.mongod import ReplicaSet, mongod_binary
from dev.stack.functions import FunctionProcess
from dev.stack.options import Options
from twofold.setup.roles import ROLES

SETUP_WITHIN_S = 90.0
LIST_EVERY_S = 10.0
"""Seconds between the timer's events for `pod_events`, with a `kubeconfig`."""


class Stack:
    """A running stack for the time of a `with` block.

    All processes end with the block: after an exception, Ctrl-C, SIGTERM, or a failed start. If this process is
    killed, the kernel ends its children, and only the temporary data stays.
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
        self.issuer: Issuer
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
        """End and remove all parts, the last started first. Signals are ignored meanwhile."""
        with signals_ignored():
            self._undo.close()
        self._signals.close()

    @property
    def mongodb_uri(self) -> str:
        """The MongoDB URI for a client that may do everything."""
        return self.mongo.uri if self.mongo else self.options.mongodb_uri or ""

    @property
    def kafka(self) -> str:
        """Kafka's bootstrap servers."""
        return self.broker.bootstrap

    @property
    def publish_url(self) -> str:
        """The URL of publish."""
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
    def token(self) -> str:
        """A bearer token for a service with all permissions."""
        return token()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of setup, with all permissions on MongoDB. A test may pass them to the library."""
        return {
            "MONGODB_URI": self.mongodb_uri,
            "MONGODB_DATABASE": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_CONSUMER_GROUP": self.consumer_group,
            "PODS_SELECTOR": "",  # all pods
            **self.issuer.settings,
            **self.options.settings,
        }

    def function_environment(self, name: str) -> dict[str, str]:
        """Return the settings of a function. With `auth`, its URI names the function's own user."""
        user = {}
        if self.mongo and self.options.auth:
            user = {"MONGODB_URI": self.mongo.uri_for(name, self._passwords[name], self.database)}
        cluster = {"KUBECONFIG": str(self.options.kubeconfig)} if self.options.kubeconfig else {}
        return self.environment | user | cluster | dict(self.options.function_settings.get(name, {}))

    def setup(self) -> None:
        """Run `twofold.setup`, as its Job does in a cluster. Raises `StartFailed` with the end of its output."""
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
            raise StartFailed(f"twofold.setup ended with exit status {run.returncode}\n{log.read_text()[-3000:]}")

    def restart_broker(self) -> None:
        """Restart the broker at its address. Run setup again for a broker that forgets its topics."""
        self.broker.restart()
        if not self.broker.keeps_log:
            self.setup()

    def new_source(self, *arguments: str, name: str = "kafka_source", group: str | None = None) -> Child:
        """Return a KafkaSource stand-in, not started, with the settings of knative/base and retries for minutes.

        `arguments` win over the usual ones. `name` is the name of the process and of its log file.
        """
        sink = self.functions.get("dead_letters")
        source = self._module(
            "dev.kafka_source",
            *("--bootstrap-servers", self.kafka, "--topic", self.topic, "--group", group or self.consumer_group),
            *("--sink", self.store_url, "--name", "store", "--ordering", "unordered"),
            *("--initial-offset", "earliest", "--session-timeout-ms", "6000", "--commit-every", "5"),
            *("--key-type", "byte-array"),
            *("--retry", "300", "--backoff-policy", "linear", "--backoff-delay", "0.2", "--timeout", "30"),
            *(("--dead-letter-sink", sink.url) if sink else ()),
            *self.options.source_arguments,
            *arguments,
            name=name,
            ready_line="ready",
        )
        self._undo.callback(source.terminate, 5.0)
        return source

    def _start(self) -> None:
        self._signals.enter_context(sigterm_exits())
        self.logs = self._make_logs()
        data = Path(tempfile.mkdtemp(prefix="twofold-"))
        self._undo.callback(shutil.rmtree, data, ignore_errors=True)
        self._start_servers(data)
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
        """Start MongoDB and Kafka at the same time, then wait for both."""
        if self.options.mongodb_uri is None:
            self.mongo = self._replica_set(data / "mongod")
            self._on_step(f"starting mongod ({self.options.members} in the replica set)")
            self._undo.callback(self.mongo.stop)
            self.mongo.spawn()
        self.broker = self._make_broker(data / "kafka")
        self._on_step(f"starting Kafka ({self.broker.name})")
        self._undo.callback(self.broker.stop)
        self.broker.spawn()
        self.issuer = Issuer(self.options.ports.get("issuer", 0))
        self._undo.callback(self.issuer.stop)
        self.issuer.start()
        if self.mongo:
            self.mongo.wait_ready()
        self.broker.wait_ready()

    def _replica_set(self, directory: Path) -> ReplicaSet:
        self._on_step("checking this machine")
        if self.options.mongodb_image is None:
            preflight.check(mongod_binary())
        elif reason := containers.unavailable():
            raise LookupError(f"this machine cannot run MongoDB in a container: {reason}")
        first = self.options.ports.get("mongod")
        return ReplicaSet(
            directory,
            self.logs,
            members=self.options.members,
            auth=self.options.auth,
            set_parameters=self.options.set_parameters,
            ports=tuple(range(first, first + self.options.members)) if first else (),
            image=self.options.mongodb_image,
        )

    def _make_broker(self, directory: Path) -> Broker:
        if self.options.kafka_bootstrap:
            return ExternalBroker(self.options.kafka_bootstrap)
        return create(self.options.broker, directory, self.logs, self.options.ports.get("kafka"))

    def _start_functions(self) -> None:
        """Start all functions and the KafkaSource at the same time, then wait for each."""
        children: list[Child] = []
        self._undo.callback(terminate_all, children, 5.0)
        for name in self.options.with_functions:
            self.functions[name] = self._function(name)
            children.append(self.functions[name])
            children[-1].spawn()
        if "store" in self.functions:
            self.source = self.new_source()
            children.append(self.source)
            self.source.spawn()
        for child in children:
            self._on_step(f"starting {child.name}")
            child.wait_ready()

    def _function(self, name: str) -> FunctionProcess:
        port = self.options.ports.get(name) or free_port()
        settings = self.function_environment(name)
        return FunctionProcess(name, port, settings, logs=self.logs, workers=self.options.workers)

    def _start_timers(self) -> None:
        if self.options.relay_every_s is not None and "relay" in self.functions:
            self._start_timer("relay", self.options.relay_every_s)
        if self.options.kubeconfig and "pod_events" in self.functions:
            self._start_timer("pod_events", LIST_EVERY_S)

    def _start_timer(self, function: str, every_s: float) -> None:
        arguments = ("--sink", self.functions[function].url, "--name", function, "--every", str(every_s))
        self._run_beside(self._module("dev.ping", *arguments, name=f"ping_{function}"))

    def _start_pod_source(self) -> None:
        """Start the ApiServerSource of knative/base."""
        if "pod_events" not in self.functions or not (self.options.pod_lives or self.options.kubeconfig):
            return
        watched = self.options.kubeconfig
        arguments = ("--sink", self.pod_events_url, *(("--kubeconfig", str(watched)) if watched else ()))
        name, ready_line = "api_server_source", "watching" if watched else None
        self._run_beside(self._module("dev.api_server_source", *arguments, name=name, ready_line=ready_line))

    def _run_beside(self, child: Child) -> None:
        self._undo.callback(child.terminate, 5.0)
        child.start()

    def _module(self, module: str, *arguments: str, name: str, ready_line: str | None = None) -> Child:
        """Return a process of a stand-in of this package, not started. It is ready when it prints `ready_line`."""
        command = [sys.executable, "-m", module, *arguments]
        return Child(
            name,
            command,
            log=self.logs / f"{name}.log",
            ready=lambda child: ready_line is None or child.printed(ready_line),
            cwd=ROOT,
            env=plain_environment(),
        )
