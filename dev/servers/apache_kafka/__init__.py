"""Apache Kafka on a JDK. Maven fetches its jars once into the cache."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from dev.paths import cache_dir
from dev.process.child import StartFailed, free_port
from dev.servers.kafka_process import KafkaProcess

POM = Path(__file__).parent / "pom.xml"
VERSION = re.findall(r"<kafka.version>(.+)</kafka.version>", POM.read_text())[0]
MINIMUM_JAVA = 17

_JVM = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData"]
_CLUSTER_ID = "dHdvZm9sZC1sb2NhbC1kZQ"


def unavailable() -> str | None:
    """Return the program that this machine lacks, or None. Maven's repository is not asked."""
    if java_version() < MINIMUM_JAVA:
        return f"Java {MINIMUM_JAVA} or newer is missing (Debian: openjdk-17-jre-headless)"
    if not _jar_dir().is_dir() and shutil.which("mvn") is None:
        return "Maven is missing (Debian: maven), and Kafka's jars are not in the cache"
    return None


def java_version() -> int:
    """Return the major version of `java` on the path, or 0 without Java."""
    if shutil.which("java") is None:
        return 0
    output = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', output)
    return int(found[1]) if found else 0


def _jar_dir() -> Path:
    return cache_dir() / f"kafka-{VERSION}"


def _fetch_jars() -> None:
    """Fill the folder of Kafka's jars, if it is absent. Raises `StartFailed` with Maven's output."""
    if _jar_dir().is_dir():
        return
    unfinished = _jar_dir().with_name(f"{_jar_dir().name}.{os.getpid()}")
    _run_maven(unfinished)
    try:
        unfinished.rename(_jar_dir())  # so the folder is complete or absent, even if two processes fetch
    except OSError:
        shutil.rmtree(unfinished)


def _run_maven(target: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    run = subprocess.run([*command, f"-DoutputDirectory={target}"], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        raise StartFailed(f"Maven could not fetch Apache Kafka {VERSION}:\n{(run.stdout + run.stderr)[-2000:]}")


def settings_of(port: int, controller_port: int) -> dict[str, str]:
    """Return the properties of a broker on loopback. Groups form at once, and a crashed broker is back soon."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "broker.heartbeat.interval.ms": "300",
        "broker.session.timeout.ms": "2000",
        "initial.broker.registration.timeout.ms": "10000",
        "log.cleaner.dedupe.buffer.size": "8388608",
    }


class ApacheKafka(KafkaProcess):
    """A broker and controller in one process (KRaft), with its records in `directory`."""

    keeps_log = True

    def __init__(self, directory: Path, logs: Path, port: int | None = None) -> None:
        self._directory = directory
        self._properties = directory / "server.properties"
        self._port, self._controller_port = port or free_port(), free_port()
        command = _java("kafka.Kafka", self._properties)
        super().__init__("apache", command, self._port, log=logs / "kafka.log", ready_within=60.0)

    def spawn(self) -> None:
        """Start the broker without waiting. The first call fetches the jars and formats the storage."""
        _fetch_jars()
        if not self._properties.exists():
            self._format()
        super().spawn()

    def _format(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        settings = settings_of(self._port, self._controller_port) | {"log.dirs": str(self._directory / "log")}
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = _java("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", self._properties)
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise StartFailed(f"Apache Kafka could not format {self._directory}:\n{run.stdout}{run.stderr}")


def _java(main: str, *arguments: str | Path) -> list[str | Path]:
    """Return the command for one of Kafka's main classes, which logs warnings and errors to its output."""
    level = "-Dorg.apache.logging.log4j.level=WARN"
    return ["java", *_JVM, level, "-cp", f"{_jar_dir()}/*", main, *map(str, arguments)]
