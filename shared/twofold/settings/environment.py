"""Settings from the environment variables, with errors for people, and the version."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from twofold.errors import InvalidSettings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_Settings = TypeVar("_Settings", bound=BaseSettings)


def read_settings(kind: type[_Settings]) -> _Settings:
    """Return the settings in the environment variables. Raises `InvalidSettings` with the name of every wrong variable.

    The message shows no value: a password may stand in a wrong variable.
    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        complaints = [_complaint(f"{prefix}{'.'.join(map(str, each['loc']))}".upper(), each) for each in wrong]
        raise InvalidSettings("; ".join(complaints)) from None


def _complaint(variable: str, wrong: "ErrorDetails") -> str:
    if wrong["type"] == "missing":
        return f"{variable} is missing: set this environment variable"
    if wrong["type"] in ("too_short", "string_too_short"):
        return f"{variable} is empty: set this environment variable"
    message = wrong["msg"].removeprefix("Value error, ")
    return f"{variable}: {message[0].lower()}{message[1:]}" if wrong["loc"] else message


def package_version() -> str:
    """Return the version of the installed package, or `unknown` in a tree that is not installed."""
    try:
        return version("twofold")
    except PackageNotFoundError:
        return "unknown"
