"""Errors of the driver as causes for logs. Pure.

The text of a driver's error can hold whole documents: a `BulkWriteError` shows each refused document. So a log line
gets the class of the error, the codes and their numbers. Only a lost connection keeps its message.
"""

from collections import Counter

from pymongo.errors import BulkWriteError, ConnectionFailure, NotPrimaryError, OperationFailure, PyMongoError

from twofold.errors import cut_text

_MAX_TEXT_CHARS = 500


class DriverFailure(Exception):
    """The cause of an `Unavailable`: the class and the codes of a driver's error, without the values in it.

    `error` is the driver's error, for `diagnose`. No log line shows it.
    """

    def __init__(self, message: str, error: PyMongoError) -> None:
        super().__init__(message)
        self.error = error


def driver_failure(error: PyMongoError) -> DriverFailure:
    """Return the cause for `error`."""
    return DriverFailure(cut_text(_describe(error), _MAX_TEXT_CHARS), error)


def _describe(error: PyMongoError) -> str:
    name = type(error).__name__
    if isinstance(error, BulkWriteError):
        return f"{name}: {_bulk_codes(error)}"
    if isinstance(error, OperationFailure):
        labels = ", ".join(sorted((error.details or {}).get("errorLabels", ())))
        return f"{name}: code {error.code}{f', {labels}' if labels else ''}"
    if isinstance(error, ConnectionFailure) and not isinstance(error, NotPrimaryError):
        return f"{name}: {error}"
    return name


def _bulk_codes(error: BulkWriteError) -> str:
    """Return the codes with their numbers: `write errors 11000 (190 times), write-concern errors 64 (once)`."""
    details = error.details or {}
    kinds = {"write errors": "writeErrors", "write-concern errors": "writeConcernErrors"}
    counted = {kind: Counter(failure.get("code") for failure in details.get(key, ())) for kind, key in kinds.items()}
    texts = [
        f"{kind} {code} ({number} times)" for kind, codes in counted.items() for code, number in codes.most_common(5)
    ]
    return ", ".join(texts) or "no codes"
