"""Readiness: a worker process is ready after its first successful access to MongoDB.

A wrong password, host, CA or replica set never becomes ready, so Knative keeps the traffic on the revision that works.
A ready process stays ready while MongoDB is unavailable: another process would not reach MongoDB either. Kafka is no
condition, because publishing works without Kafka.
"""

import asyncio
import logging
import time
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from twofold.errors import Unavailable
from twofold.kafka.client import is_listening
from twofold.mongo.client import driver_errors, open_database
from twofold.mongo.diagnosis import mongodb_hosts
from twofold.settings import MongoSettings, SenderSettings
from twofold.settings.environment import package_version

logger = logging.getLogger(__name__)

PROBE_S = 0.8
"""The longest wait of a probe. Knative's probe waits for a second."""
KAFKA_S = 2.0
"""The longest wait for the address of a broker."""
LOG_AGAIN_S = 60.0
"""Seconds between two log lines with the same cause."""


class Readiness:
    """The readiness of one worker process. Settings without MongoDB are ready at once."""

    def __init__(self, function: str, settings: BaseSettings | None) -> None:
        self._function = function
        self._settings = settings
        self._ready = not isinstance(settings, MongoSettings)
        self._check: asyncio.Task[None] | None = None
        self._report: asyncio.Task[None] | None = None
        self._logged: tuple[str, float] = ("", 0.0)

    def start(self) -> None:
        """Begin a check in the background, unless a check is running or was successful."""
        if not self._ready and (self._check is None or self._check.done()):
            self._check = asyncio.get_running_loop().create_task(self._run())

    async def is_ready(self) -> bool:
        """Return True after a successful check. Waits at most `PROBE_S` for the check under way."""
        self.start()
        if not self._ready and self._check is not None:
            await asyncio.wait({self._check}, timeout=PROBE_S)
        return self._ready

    async def _run(self) -> None:
        """Read from MongoDB as the function's user. The start line follows behind the answer to the probe."""
        if not isinstance(self._settings, MongoSettings):
            return
        try:
            async with open_database(self._settings, self._function) as database:
                with driver_errors():  # a user with any permission may read these names
                    await database.command("listCollections", nameOnly=True, authorizedCollections=True)
        except Unavailable as error:
            self._log_problem(error.diagnosis or error.detail)
            return
        self._ready = True
        self._report = asyncio.get_running_loop().create_task(self._write_start_line())

    async def _write_start_line(self) -> None:
        """Write the line in a thread: the first line imports structlog, and the first request does not wait for it."""
        kafka = await self._kafka()
        await asyncio.to_thread(self._log_start, kafka)

    def _log_start(self, kafka: str) -> None:
        if self._settings is not None:
            logger.info("ready", extra=start_fields(self._settings) | {"mongodb": "reached", "kafka": kafka})

    async def _kafka(self) -> str:
        if not isinstance(self._settings, SenderSettings):
            return "not used"
        if await is_listening(self._settings, KAFKA_S):
            return "reached"
        return f"not reached: nothing listens at {self._settings.kafka_bootstrap_servers}"

    def _log_problem(self, cause: str) -> None:
        now = time.monotonic()
        if self._logged[0] != cause or now - self._logged[1] >= LOG_AGAIN_S:
            self._logged = (cause, now)
            logger.error("not ready: %s", cause)


def start_fields(settings: BaseSettings) -> dict[str, Any]:
    """Return the version, and the settings from the environment. A secret is left out, and a URI has only its hosts."""
    given = {name: getattr(settings, name) for name in sorted(settings.model_fields_set)}
    fields = {name: value for name, value in given.items() if not isinstance(value, SecretStr)}
    if isinstance(settings, MongoSettings):
        fields["mongodb_hosts"] = mongodb_hosts(settings.mongodb_uri.get_secret_value())
    return {"version": package_version(), "settings": fields}
