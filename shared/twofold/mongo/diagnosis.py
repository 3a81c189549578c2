"""Messages for operators about a MongoDB that a process cannot use: the address, the variable, the cause, the remedy.

The driver puts the causes into texts: one for each server, followed by the state of all servers. This module looks for
the causes that a wrong setting has.
"""

import re
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import OperationFailure, PyMongoError

from twofold.errors import InvalidSettings
from twofold.mongo.failures import DriverFailure

_CAUSES_BY_CODE = {
    13: "MongoDB's user may not do this: run the Job `setup`, which grants the roles",
    18: "authentication failed: correct the user, the password or authSource",
}
"""The causes by the server's error code."""

_NO_USER = "MongoDB asks for a user: write USER:PASSWORD@ before the hosts"

_CAUSES = tuple(
    (re.compile(pattern, re.IGNORECASE), cause)
    for pattern, cause in (
        ("certificate verify failed: (Hostname|IP address) mismatch", "TLS: the certificate is for another host name"),
        (
            "certificate verify failed",
            "TLS: the CA in tlsCAFile did not sign the server's certificate: use the CA of these servers",
        ),
        ("SSL handshake failed", "TLS: the handshake failed: leave tls=true out if the servers use no TLS"),
        ("for replica set name", "no server belongs to the replica set in replicaSet: correct the name"),
        (
            "Name or service not known|nodename nor servname|Temporary failure in name resolution|No address associated"
            "|DNS query name does not exist|getaddrinfo",
            "the host name is unknown: correct the host",
        ),
        ("refused|Connect call failed", "nothing listens there: correct host and port, or start MongoDB"),
        (
            "connection closed|Connection reset",
            "the server closed the connection: add tls=true if the servers use TLS",
        ),
        ("Message length|ProtocolError", "the server does not speak MongoDB's protocol: correct host and port"),
        ("No primary|No replica set members match", "the replica set has no primary: it elects a primary, try again"),
        ("found yet|timed out|timeout", "no answer in time: check the network, its policies and firewalls"),
    )
)
"""The causes by the driver's text, the most specific cause first."""

_PASSWORD = re.compile(r"://[^/?#]*@")


def mongodb_hosts(uri: str) -> str:
    """Return the hosts and ports in a URI, without user and password."""
    return re.split("[/?#]", uri.partition("://")[2].rpartition("@")[2])[0]


def diagnose(error: PyMongoError, uri: str) -> str:
    """Return a line for the driver's error: the hosts, `MONGODB_URI`, the cause and the remedy."""
    return f"MongoDB at {mongodb_hosts(uri)} (MONGODB_URI): {_cause(error)}"


def _cause(error: PyMongoError) -> str:
    if "requires authentication" in str(error):
        return _NO_USER
    if isinstance(error, OperationFailure) and error.code in _CAUSES_BY_CODE:
        return _CAUSES_BY_CODE[error.code]
    text = str(error).partition(", Timeout: ")[0]
    details = re.sub(r"\(configured timeouts:[^)]*\)", "", text)
    for pattern, cause in _CAUSES:
        if pattern.search(details):
            return cause
    return f"MongoDB did not carry out the operation ({type(error).__name__}): try again"


def driver_error(error: BaseException) -> PyMongoError | None:
    """Return the driver's error behind `error`, or None."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, DriverFailure | PyMongoError):
        cause = cause.__cause__
    return cause.error if isinstance(cause, DriverFailure) else cause


@contextmanager
def uri_errors(uri: str) -> Iterator[None]:
    """Turn errors of the client's creation into `InvalidSettings`. The message has neither user nor password."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Unknown option")
            yield
    except ssl.SSLError as error:
        raise InvalidSettings("MONGODB_URI: tlsCAFile or tlsCertificateKeyFile has no valid certificate") from error
    except OSError as error:
        raise InvalidSettings(f"MONGODB_URI: the file {error.filename} cannot be read: {error.strerror}") from error
    except (PyMongoError, ValueError, TypeError, UserWarning) as error:
        raise InvalidSettings(f"MONGODB_URI is malformed: {_without_secrets(str(error), uri)}") from None


def _without_secrets(message: str, uri: str) -> str:
    """Return the first sentence of the driver's message, or a general message if the URI's user is in it."""
    credentials = _PASSWORD.search(uri)
    secrets = re.split("[:@]", credentials[0][3:]) if credentials else []
    if any(len(secret) > 2 and secret in message for secret in secrets):
        return "write it as mongodb://USER:PASSWORD@HOST:PORT/?OPTIONS"
    return message.partition(". ")[0].partition("\n")[0]
