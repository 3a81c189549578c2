"""Apache Kafka itself, its jars fetched once by Maven: the broker that production has, on one machine."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from dev.kafka_process import ProcessBroker, answers
from dev.paths import cache_dir
from dev.processes import Child, StartFailed, free_port

POM = Path(__file__).parent / "pom.xml"
VERSION = re.findall(r"<kafka.version>(.+)</kafka.version>", POM.read_text())[0]
MINIMUM_JAVA = 17

_JVM = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData"]
_CLUSTER_ID = "dHdvZm9sZC1sb2NhbC1kZQ"


def unavailable() -> str | None:
    """What is missing to have it here; None if nothing is. Whether Maven's repository answers isn't tried."""
    if java_version() < MINIMUM_JAVA:
        return f"Java {MINIMUM_JAVA} or newer is missing (Debian: openjdk-17-jre-headless)"
    if not _jars_present() and shutil.which("mvn") is None:
        return "Maven is missing (Debian: maven), and Kafka's jars are not in the cache"
    return None


def java_version() -> int:
    """The major version of the `java` on the path; 0 if there is none."""
    if shutil.which("java") is None:
        return 0
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0


def _jar_dir() -> Path:
    return cache_dir() / f"kafka-{VERSION}"


def _jars_present() -> bool:
    return _jar_dir().is_dir()


def jars() -> Path:
    """The folder with Kafka's jars, fetched first if need be. Raises `StartFailed` with what Maven said."""
    if not _jars_present():
        unfinished = _jar_dir().with_name(f"{_jar_dir().name}.{os.getpid()}")
        _fetch(unfinished)
        try:
            unfinished.rename(_jar_dir())  # whole or absent, whoever else fetches at the same time
        except OSError:
            shutil.rmtree(unfinished)
    return _jar_dir()


def _fetch(target: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    run = subprocess.run([*command, f"-DoutputDirectory={target}"], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        said = (run.stdout + run.stderr)[-2000:]
        raise StartFailed(f"Maven could not fetch Apache Kafka {VERSION}:\n{said}")


class ApacheKafka(ProcessBroker):
    """One Kafka in KRaft mode, broker and controller in one process, on loopback, its log in `directory`."""

    def __init__(self, directory: Path, logs: Path, port: int | None = None) -> None:
        self._directory = directory
        self._log = logs / "kafka.log"
        self._properties = directory / "server.properties"
        self._port, self._controller_port = port or free_port(), free_port()
        bootstrap = f"127.0.0.1:{self._port}"
        child = Child(
            "apache kafka",
            _java("kafka.Kafka", self._properties),
            log=self._log,
            ready=lambda _: answers(bootstrap),
            ready_within=60.0,
        )
        super().__init__("apache", child, bootstrap, keeps_log=True)

    def spawn(self) -> None:
        """Format the storage the first time, and start it without waiting."""
        jars()
        if not self._properties.exists():
            self._format()
        super().spawn()

    def _format(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(self._settings())
        command = _java("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", self._properties)
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise StartFailed(f"Apache Kafka's storage could not be formatted:\n{run.stdout}{run.stderr}")

    def _settings(self) -> str:
        """One node that forms groups at once, takes short time-outs, and is back fast after a crash."""
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self._controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self._port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={self._directory / "log"}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=2000
initial.broker.registration.timeout.ms=10000
log.cleaner.dedupe.buffer.size=8388608
"""


def _java(main: str, *arguments: str | Path) -> list[str]:
    """The command for one of Kafka's main classes. Its log goes to the console, from warnings on."""
    level = "-Dorg.apache.logging.log4j.level=WARN"
    return ["java", *_JVM, level, "-cp", f"{_jar_dir()}/*", main, *map(str, arguments)]
