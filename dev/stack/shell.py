"""The addresses of a running stack for a shell: a file to `source`, and tokens of the stack's issuer.

The file of the last started stack is `.twofold/stack.env`. A token comes from the issuer at its address, so that the
signing key stays in the process of the stack.
"""

import re
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from shlex import quote
from urllib.parse import urlencode, urlsplit

from dev.paths import SCRATCH
from dev.stack.running import Running

FILE = SCRATCH / "stack.env"
_ISSUER = re.compile("^export ISSUER='?(http://[^'\n]+)'?$", re.MULTILINE)


class NoStack(LookupError):
    """There is no running stack whose issuer could make a token."""


def text(running: Running) -> str:
    """Return the content of the file: `PUBLISH`, `STORE` and so on, `TOKEN`, and the settings of the library."""
    values = {name.upper(): url for name, url in running.urls.items()}
    values |= {
        "ISSUER": running.issuer_url,
        "TOKEN": running.token,
        "MONGODB_URI": running.mongodb_uri,
        "MONGODB_DATABASE": running.database,
        "KAFKA_BOOTSTRAP_SERVERS": running.kafka,
        "KAFKA_TOPIC": running.kafka_topic,
        "KAFKA_CONSUMER_GROUP": running.kafka_consumer_group,
    }
    head = "# A stack on this machine. `make demo` in this shell uses its servers too: MONGODB_URI names them.\n"
    return head + "".join(f"export {name}={quote(value)}\n" for name, value in values.items())


def write(running: Running) -> Path:
    """Write the file, readable by its owner only, and return its path."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.touch(mode=0o600)
    FILE.write_text(text(running))
    return FILE


def new_token(subject: str, roles: str, file: Path = FILE) -> str:
    """Return a token of the running stack's issuer. `roles` are separated by spaces or commas. Raises `NoStack`."""
    found = _ISSUER.search(file.read_text()) if file.exists() else None
    if found is None:
        raise NoStack("no stack was started here: run `make dev`, or `make demo KEEP=1`, and then `make token`")
    form = urlencode({"sub": subject, "roles": " ".join(re.split(r"[\s,]+", roles.strip()))})
    connection = HTTPConnection(urlsplit(found[1]).netloc, timeout=5.0)
    try:
        connection.request("POST", "/token", form, {"content-type": "application/x-www-form-urlencoded"})
        return connection.getresponse().read().decode()
    except (OSError, HTTPException) as error:
        raise NoStack(
            f"the issuer of the last stack ({found[1]}) does not answer: start it again with `make dev`"
        ) from error
    finally:
        connection.close()
