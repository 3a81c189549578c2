"""The servers of the tests: real servers, started as `make dev` starts them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from dev.process.child import free_port
from dev.servers.broker import PROVIDERS, Broker, create
from dev.stack import Options, Stack
from dev.stack.functions import FunctionProcess
from tests.helpers import View, settings_of, view
from twofold.kafka.sender import Sender
from twofold.mongo.client import Database, open_database
from twofold.settings import Settings
from twofold.setup.run import set_up


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the broker."""
    parser.addoption("--broker", choices=sorted(PROVIDERS), default="tansu", help="the Kafka broker of the stacks")


@pytest.fixture(scope="session")
def broker_name(request: pytest.FixtureRequest) -> str:
    """Return the chosen broker."""
    return str(request.config.getoption("--broker"))


@pytest.fixture(scope="session")
def stack(broker_name: str) -> Iterator[Stack]:
    """Start the stack for tests that break no server. A test uses ids of its own.

    MongoDB checks users, so a function has only the rights of its role.
    """
    options = Options(
        auth=True,
        broker=broker_name,
        set_parameters={"enableTestCommands": 1, "ttlMonitorSleepSecs": 1},
        settings={"RELAY_FIRST_LOOK_S": "0.1", "RETENTION_DAYS": "3"},
    )
    with Stack(options) as running:
        yield running


@pytest.fixture(scope="session")
def flow(stack: Stack) -> Iterator[View]:
    """Open a view of the shared stack."""
    with view(stack) as seen:
        yield seen


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Start Apache Kafka itself, for tests that Tansu cannot serve.

    These tests have the marker `java`. Without Java, `make` leaves them out, and a direct call fails with the reason.
    """
    directory = tmp_path_factory.mktemp("apache")
    broker = create("apache", directory / "data", directory / "logs")
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


class Spawner:
    """Starts more functions on the servers of a stack, for tests that stop or break them."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._started: list[FunctionProcess] = []

    def __call__(self, name: str, *, probe: str = "/healthz", **settings: str) -> FunctionProcess:
        """Start a process of the function with more settings. It ends with the test.

        Without MongoDB, a function answers only the probe `/livez`.
        """
        env = self._stack.function_environment(name) | settings
        number = len(self._started)
        logs = self._stack.logs / f"{uuid4()}-{number}"
        function = FunctionProcess(name, free_port(), env, logs=logs, probe=probe)
        self._started.append(function)
        function.start()
        return function

    def stop(self) -> None:
        """Kill the started processes."""
        for function in self._started:
            function.kill()


@pytest.fixture
def spawn(stack: Stack) -> Iterator[Spawner]:
    """Return a `Spawner` for the shared stack."""
    spawner = Spawner(stack)
    yield spawner
    spawner.stop()


@pytest.fixture
async def settings(stack: Stack) -> AsyncIterator[Settings]:
    """Set up a database and a topic for this test on the shared servers."""
    own = settings_of(stack, mongodb_database=f"test_{uuid4().hex}", kafka_topic=f"test.{uuid4()}")
    await set_up(own, {})
    yield own
    async with open_database(own, "tests") as database:
        await database.client.drop_database(database.name)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database of this test."""
    async with open_database(settings, "tests") as own:
        yield own


@pytest.fixture
async def sender(settings: Settings) -> AsyncIterator[Sender]:
    """Return a sender to the topic of this test. It is closed without waiting for Kafka."""
    made = Sender(settings)
    yield made
    await asyncio.to_thread(made.close, 0.0)
