"""The start of a function: its settings, checked before the first request, and its logs.

functions-framework imports `main.py`. A wrong setting must end this import with a line for people and exit status 1,
and not with a traceback: see `load_settings`.
"""

import logging
from importlib.util import find_spec
from typing import TypeVar

from twofold.errors import InvalidSettings, MissingExtra
from twofold.kafka.diagnosis import check_kafka
from twofold.mongo.client import new_client
from twofold.observability.logs import write_logs
from twofold.observability.otel_settings import OtelSettings
from twofold.settings import AuthSettings, LogSettings, MongoSettings, PodSettings, SenderSettings
from twofold.settings.environment import read_settings
from twofold.web.auth import check_auth

logger = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=LogSettings)


def load_settings(kind: type[Settings], function: str) -> Settings:
    """Return the settings of a function, and make its loggers write.

    Checks every variable, the form of `MONGODB_URI`, the CA files and the installed packages, without a connection. An
    error writes a line to the log and ends the process with exit status 1.
    """
    write_logs(LogSettings.model_construct(), function)
    try:
        settings = read_settings(kind)
        write_logs(settings, function)
        _check(settings, function)
    except (InvalidSettings, MissingExtra) as error:
        logger.critical("the function does not start: %s", error)
        raise SystemExit(1) from None
    return settings


def _check(settings: LogSettings, function: str) -> None:
    """Check the groups of settings. Raises `InvalidSettings` or `MissingExtra`."""
    read_settings(OtelSettings)
    if isinstance(settings, MongoSettings):
        new_client(settings, function)
    if isinstance(settings, SenderSettings):
        check_kafka(settings)
    if isinstance(settings, AuthSettings):
        check_auth(settings)
    if isinstance(settings, PodSettings) and find_spec("kubernetes") is None:
        raise MissingExtra("kubernetes", "pods")
