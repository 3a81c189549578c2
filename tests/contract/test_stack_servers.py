"""The promises of the local stack about processes and servers, shown on real processes and servers."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from dev import preflight
from dev.adapter import deliver
from dev.paths import ROOT
from dev.ping import ping_headers
from dev.process.child import Child, StartFailed, free_port, wait_until
from dev.process.proc import processes, status
from dev.servers.broker import Broker, create
from dev.servers.mongod import ReplicaSet
from dev.stack import Options, Stack

pytestmark = [pytest.mark.dev, pytest.mark.slow]

LDD_OUTPUT = """\
\tlinux-vdso.so.1 (0x00007ffd)
\tlibcurl.so.4 => not found
\tlibssl.so.3 => not found
\tlibcrypto.so.3 => not found
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f6d)
\tlibcurl.so.4 => not found
"""


def alive(pid: int) -> bool:
    """Return True for a running process, and False for an ended process that still has an entry."""
    found = status(Path(f"/proc/{pid}"))
    return found is not None and found.state != "Z"


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Return a function that makes children of a shell line. They end with the test."""
    made: list[Child] = []

    def make(line: str, ready: str = "", ready_within: float = 5.0) -> Child:
        command = ["sh", "-c", line]
        log = tmp_path / f"child-{len(made)}.log"
        made.append(Child("child", command, log=log, ready=lambda c: c.printed(ready), ready_within=ready_within))
        return made[-1]

    yield make
    for started in made:
        started.kill()


class TestPreflight:
    def test_names_each_missing_library_once(self) -> None:
        assert preflight.missing_libraries(LDD_OUTPUT) == ["libcurl.so.4", "libssl.so.3", "libcrypto.so.3"]

    def test_names_the_packages_of_missing_libraries(self) -> None:
        complaints = preflight.library_complaints(["libcurl.so.4", "libssl.so.3", "libcrypto.so.3"])
        assert complaints[0] == "mongod needs libcurl.so.4, from the package libcurl4"
        assert complaints[-1] == "on Debian or Ubuntu: sudo apt-get install libcurl4 libssl3"

    def test_names_an_unknown_library_without_a_package(self) -> None:
        assert preflight.library_complaints(["libodd.so.1"]) == ["mongod needs libodd.so.1, from the package unknown"]

    def test_a_machine_that_has_everything_gets_no_complaint(self) -> None:
        assert preflight.missing_libraries("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n") == []
        assert preflight.machine_complaints(preflight.Machine("Linux", "x86_64", (3, 11), (2, 36))) == []

    def test_lists_all_complaints_together(self) -> None:
        machine = preflight.Machine("Darwin", "arm64", (3, 10), (2, 31))
        with pytest.raises(preflight.Unfit) as caught:
            preflight.check(Path(sys.executable), machine)
        for part in ("Darwin arm64", "Python 3.11", "glibc 2.35", "not 2.31"):
            assert part in str(caught.value)

    def test_a_system_without_glibc_gets_a_complaint(self) -> None:
        machine = preflight.Machine("Linux", "x86_64", (3, 11), None)
        assert "glibc" in preflight.machine_complaints(machine)[0]


class TestProcesses:
    def test_a_child_that_ends_early_shows_the_end_of_its_log(self, child: Callable[..., Child]) -> None:
        with pytest.raises(StartFailed, match="exit status 3") as caught:
            child("echo the reason; exit 3", ready="never").start()
        assert "the reason" in str(caught.value)

    def test_a_child_that_is_not_ready_in_time_is_killed(self, child: Callable[..., Child]) -> None:
        late = child("sleep 60", ready="never", ready_within=0.2)
        with pytest.raises(StartFailed, match="not ready"):
            late.start()
        assert not late.running

    def test_kill_ends_the_processes_that_the_child_forked(self, child: Callable[..., Child]) -> None:
        master = child("sleep 60 & echo up; wait", ready="up").start()
        forked = _children_of(master.pid)
        master.kill()
        assert forked
        assert wait_until(lambda: not any(map(alive, forked)), within=2.0)

    def test_terminate_ends_a_paused_child_in_order(self, child: Callable[..., Child]) -> None:
        """A frozen process gets SIGTERM only after SIGCONT."""
        paused = child("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done", ready="up").start()
        paused.pause()
        paused.terminate(within=5.0)
        assert paused.printed("bye")

    def test_only_the_latest_run_counts_for_readiness(self, child: Callable[..., Child], tmp_path: Path) -> None:
        """All runs share a log file: a line of an earlier run must not count."""
        silent = tmp_path / "silent"
        again = child(f"test -e {silent} || echo up; sleep 60", ready="up", ready_within=0.5).start()
        again.kill()
        silent.touch()
        with pytest.raises(StartFailed, match="not ready"):
            again.start()
        assert again.log.read_text() == "up\n"

    def test_a_child_outlives_the_thread_that_started_it(self, child: Callable[..., Child]) -> None:
        """Linux ties the parent-death signal to the forking thread."""
        survivor = child("echo up; sleep 60", ready="up")
        thread = threading.Thread(target=survivor.start)
        thread.start()
        thread.join()
        time.sleep(0.2)
        assert survivor.running

    def test_a_child_dies_when_its_parent_is_killed(self, tmp_path: Path) -> None:
        script = (
            "import os, pathlib, signal, sys\n"
            "from dev.process.child import Child\n"
            "log = pathlib.Path(sys.argv[1])\n"
            "child = Child('c', ['sleep', '60'], log=log, ready=lambda c: True).start()\n"
            "print(child.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "log")]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == -signal.SIGKILL
        assert wait_until(lambda: not alive(int(run.stdout)), within=2.0)

    def test_free_ports_lie_below_the_ports_of_outgoing_connections(self) -> None:
        first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        ports = {free_port() for _ in range(50)}
        assert len(ports) == 50
        assert max(ports) < first_outgoing


@pytest.fixture
def replica_set(tmp_path: Path) -> Iterator[Callable[..., ReplicaSet]]:
    """Return a function that starts replica sets. They end with the test."""
    made: list[ReplicaSet] = []

    def make(**options: object) -> ReplicaSet:
        made.append(ReplicaSet(tmp_path / "data", tmp_path / "logs", **options))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield make
    for started in made:
        started.stop()


class TestReplicaSet:
    def test_a_killed_member_comes_back_with_its_port_and_its_data(
        self, replica_set: Callable[..., ReplicaSet]
    ) -> None:
        one = replica_set()
        with MongoClient[dict[str, int]](one.uri) as client:
            client.test.things.insert_one({"_id": 1})
            uri = one.uri
            one.kill()
            one.restart()
            assert one.uri == uri
            assert client.test.things.find_one() == {"_id": 1}

    def test_parameters_reach_the_server(self, replica_set: Callable[..., ReplicaSet]) -> None:
        one = replica_set(set_parameters={"ttlMonitorSleepSecs": 2})
        with MongoClient[dict[str, int]](one.uri) as client:
            assert client.admin.command("getParameter", ttlMonitorSleepSecs=1)["ttlMonitorSleepSecs"] == 2

    def test_with_auth_a_client_without_a_user_reads_no_data(self, replica_set: Callable[..., ReplicaSet]) -> None:
        one = replica_set(auth=True)
        with MongoClient[dict[str, int]](one.uri) as root:
            root.test.things.insert_one({"_id": 1})
        with (
            MongoClient[dict[str, int]](f"mongodb://{one.hosts}/", directConnection=True) as nobody,
            pytest.raises(OperationFailure, match="requires authentication"),
        ):
            nobody.test.things.find_one()

    def test_a_second_of_three_members_takes_over(self, replica_set: Callable[..., ReplicaSet]) -> None:
        three = replica_set(members=3)
        with MongoClient[dict[str, int]](three.uri, w="majority") as client:
            client.test.things.insert_one({"_id": 1})
            first = three.primary()
            three.kill(first)
            client.test.things.insert_one({"_id": 2})
            assert three.primary() != first
            assert client.test.things.count_documents({}) == 2
            three.restart(first)


@pytest.fixture(params=["tansu", pytest.param("apache", marks=pytest.mark.apache)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Yield a started broker."""
    made = create(request.param, tmp_path / "data", tmp_path / "logs")
    try:
        made.start()
        yield made
    finally:
        made.stop()


class TestBroker:
    def test_keeps_log_says_if_records_outlive_a_crash(self, broker: Broker) -> None:
        """Tansu is empty after a restart. Apache Kafka has its topics and records. Both keep their address."""
        address = broker.bootstrap
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            admin.create_topics([NewTopic("things", 1, 1)])
        with KafkaProducer(bootstrap_servers=address) as producer:
            producer.send("things", b"kept?").get(10)
        broker.kill()
        broker.restart()
        assert broker.bootstrap == address
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            assert ("things" in admin.list_topics()) is broker.keeps_log
        if broker.keeps_log:
            assert _first_value(address, "things") == b"kept?"

    def test_a_paused_broker_answers_only_after_it_is_resumed(self, broker: Broker) -> None:
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
            admin.create_topics([NewTopic("things", 1, 1)])
        with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            producer.send("things", b"1").get(10)
            broker.pause()
            waiting = producer.send("things", b"2")
            time.sleep(0.5)
            assert not waiting.is_done
            broker.resume()
            waiting.get(20)

    def test_an_unknown_broker_is_an_error_with_the_known_names(self, tmp_path: Path) -> None:
        with pytest.raises(LookupError, match="use one of tansu, apache, testcontainers"):
            create("rabbit", tmp_path, tmp_path)


class TestStack:
    def test_a_failed_start_leaves_no_process_and_no_data(self) -> None:
        """The unknown broker is found after the start of mongod: mongod and its data are removed."""
        before = set(_children_of(os.getpid()))
        stack = Stack(Options(broker="rabbit"))
        with pytest.raises(LookupError, match="rabbit"):
            stack.__enter__()
        assert stack.mongo is not None
        assert not any(member.running for member in stack.mongo.members)
        assert set(_children_of(os.getpid())) <= before
        assert (stack.logs / "mongod-0.log").exists(), "the logs of a failed start are kept"
        shutil.rmtree(stack.logs)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_everything(self, number: signal.Signals, tmp_path: Path) -> None:
        """After SIGTERM or Ctrl-C to the owner, no process and no data is left."""
        script = (
            "import signal, sys\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's `&` ignores SIGINT
            "from pathlib import Path\n"
            "from dev.process.signals import wait_for_a_signal\n"
            "from dev.stack import Options, Stack\n"
            "with Stack(Options(with_functions=('publish',), logs=Path(sys.argv[1]))) as stack:\n"
            "    publish = stack.functions['publish']\n"
            "    print(stack.mongo.members[0].pid, stack.broker.pid, publish.pid, *publish.worker_pids, flush=True)\n"
            "    wait_for_a_signal()\n"
        )
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        command = [sys.executable, "-c", script, str(tmp_path / "logs")]
        env = os.environ | {"TMPDIR": str(scratch)}
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            pids = [int(word) for word in owner.stdout.readline().split()]
            owner.send_signal(number)
            owner.wait(20)
        assert len(pids) == 4
        assert not any(map(alive, pids))
        assert list(scratch.iterdir()) == []


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Run an HTTP server that answers with these statuses and then 200. Yield its URL and the received headers."""
    got: list[dict[str, str]] = []
    remaining = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            got.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(next(remaining, 200))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log no request."""

    with ThreadingHTTPServer(("127.0.0.1", free_port()), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", got
        finally:
            server.shutdown()
            thread.join()


class TestPing:
    def test_a_ping_has_the_headers_of_ping_source(self) -> None:
        with answering() as (sink, got), httpx.Client() as client:
            deliver(client, sink, ping_headers("relay", datetime(2026, 1, 1, tzinfo=UTC)))
        (headers,) = got
        assert headers["ce-type"] == "dev.knative.sources.ping"
        assert headers["ce-source"] == "/apis/v1/namespaces/local/pingsources/relay"
        assert headers["ce-time"] == "2026-01-01T00:00:00Z"

    def test_a_503_is_retried_with_the_same_event(self) -> None:
        with answering(503, 429) as (sink, got), httpx.Client() as client:
            outcome = deliver(client, sink, ping_headers("relay", datetime(2026, 1, 1, tzinfo=UTC)))
        assert outcome == "200 after 3 tries"
        assert len({headers["ce-id"] for headers in got}) == 1

    def test_a_500_is_final(self) -> None:
        with answering(500) as (sink, got), httpx.Client() as client:
            deliver(client, sink, ping_headers("relay", datetime(2026, 1, 1, tzinfo=UTC)))
        assert len(got) == 1

    def test_a_ping_stops_after_five_retries(self) -> None:
        with answering(*[503] * 20) as (sink, got), httpx.Client() as client:
            assert deliver(client, sink, ping_headers("relay", datetime(2026, 1, 1, tzinfo=UTC))) == "503 after 6 tries"
        assert len(got) == 6


def _children_of(parent: int) -> list[int]:
    return [process.id for process in processes() if process.parent == parent and process.state != "Z"]


def _first_value(bootstrap: str, topic: str) -> bytes:
    with KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        return bytes(next(consumer).value)
