"""Readiness of the functions, and the line that each function writes at its start."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.process.child import StartFailed, free_port, wait_until
from dev.servers.mongod import ReplicaSet
from dev.stack import Stack
from dev.stack.functions import FUNCTIONS, FunctionProcess
from tests.conftest import Spawner
from tests.helpers import View, an_event

pytestmark = pytest.mark.guarantee("R34")


def lines_of(function: FunctionProcess) -> list[dict[str, Any]]:
    """Return the function's log."""
    return [json.loads(line) for line in function.log.read_text().splitlines()]


def start_line(function: FunctionProcess) -> dict[str, Any]:
    """Wait for the function's start line, and return it."""

    def found() -> list[dict[str, Any]]:
        return [line for line in lines_of(function) if line["message"] == "ready"]

    assert wait_until(lambda: bool(found()), within=10)
    (line,) = found()
    return line


@pytest.fixture
def unready(spawn: Spawner) -> Callable[..., FunctionProcess]:
    """Start a function, and wait for its life and not for its readiness."""
    return partial(spawn, probe="/livez")


def wrong_password(stack: Stack, name: str) -> str:
    before, _, after = stack.function_environment(name)["MONGODB_URI"].rpartition("@")
    return f"{before.rpartition(':')[0]}:wrong@{after}"


@pytest.mark.fault("C4")
def test_a_function_that_cannot_use_mongodb_is_never_ready(
    unready: Callable[..., FunctionProcess], stack: Stack
) -> None:
    """Knative then keeps the traffic on the revision that works. The process itself is alive."""
    hosts = stack.mongodb_uri.rpartition("@")[2].partition("/")[0]
    wrong = {
        "authentication failed": wrong_password(stack, "publish"),
        "nothing listens there": f"mongodb://127.0.0.1:{free_port()}/",
        "asks for a user": f"mongodb://{hosts}/?replicaSet=twofold",
        "TLS: the handshake failed": f"mongodb://{hosts}/?tls=true",
        "no server belongs to the replica set": f"mongodb://{hosts}/?replicaSet=other",
    }
    for cause, uri in wrong.items():
        function = unready("publish", MONGODB_URI=uri, MONGODB_TIMEOUT_S="1")
        for _ in range(3):
            answer = httpx.get(f"{function.url}/healthz")
            assert answer.status_code == 503
            assert answer.elapsed.total_seconds() < 1.5
            assert answer.headers["content-type"] == "application/problem+json"
            assert hosts not in answer.text

        def reported(function: FunctionProcess = function, cause: str = cause) -> bool:
            return any("not ready" in line["message"] and cause in line["message"] for line in lines_of(function))

        assert wait_until(reported, within=10), function.log.read_text()
        assert httpx.get(f"{function.url}/livez").status_code == 200
        assert sum("not ready" in line["message"] for line in lines_of(function)) == 1, "a line for each cause"
        function.kill()


@pytest.mark.fault("C4")
def test_a_wrong_uri_or_ca_ends_the_start(stack: Stack, tmp_path: Path) -> None:
    for uri in ("mongo://db/", "mongodb://db/?tls=true&tlsCAFile=/no/such/ca.pem"):
        function = FunctionProcess(
            "store", free_port(), stack.environment | {"MONGODB_URI": uri}, logs=tmp_path, ready_within=10
        )
        with pytest.raises(StartFailed, match="MONGODB_URI"):
            function.start()
        (line,) = lines_of(function)
        assert line["level"] == "critical"
        function.log.unlink()


@pytest.mark.fault("C4")
@pytest.mark.guarantee("G7")
def test_a_ready_function_stays_ready_while_mongodb_is_unavailable(
    unready: Callable[..., FunctionProcess], tmp_path: Path
) -> None:
    """Another process would not reach MongoDB either. A function becomes ready when MongoDB is back."""
    mongod = ReplicaSet(tmp_path / "data", tmp_path, members=1)
    mongod.spawn()
    try:
        mongod.wait_ready()
        function = unready("dead_letters", MONGODB_URI=mongod.uri, MONGODB_TIMEOUT_S="1")
        assert wait_until(function.healthy, within=10)
        mongod.stop()
        assert httpx.post(function.url, content=b"x").status_code == 503
        assert function.healthy()
        late = unready("relay", MONGODB_URI=mongod.uri, MONGODB_TIMEOUT_S="1")
        assert not late.healthy()
    finally:
        mongod.stop()


@pytest.mark.fault("C4")
@pytest.mark.guarantee("G7")
def test_kafka_is_no_condition_of_readiness(spawn: Spawner, flow: View) -> None:
    function = spawn("publish", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert function.healthy()
    assert flow.publish(an_event(), url=function.url).status_code == 202
    assert start_line(function)["kafka"].startswith("not reached: nothing listens at 127.0.0.1:")


@pytest.mark.fault("C6")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_writes_one_line_when_it_is_ready(flow: View, name: str) -> None:
    """The line has the version, the settings from the environment without secrets, and the servers."""
    function = flow.stack.functions[name]
    line = start_line(function)
    assert line["version"]
    assert line["level"] == "info"
    assert line["mongodb"] == "reached"
    assert line["kafka"] == ("reached" if name in ("publish", "relay", "pod_events") else "not used")
    settings = line["settings"]
    uri = flow.stack.function_environment(name)["MONGODB_URI"]
    assert settings["mongodb_hosts"] == uri.rpartition("@")[2].partition("/")[0]
    assert settings["mongodb_database"] == flow.stack.database
    if name == "publish":
        assert settings["kafka_bootstrap_servers"] == flow.stack.kafka
        assert settings["auth_issuer"]
    password = uri.rpartition("@")[0].rpartition(":")[2]
    assert password not in function.log.read_text()
