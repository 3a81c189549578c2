"""The APIs and their descriptions: the examples of docs/api.md work, and schemathesis finds no difference."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import api_docs
from dev.process.child import wait_until
from dev.servers.issuer import token
from tests.conftest import Spawner
from tests.helpers import View, some_events
from twofold.read.feed import MAX_WAIT_S

TIMED_OUT = 28
"""The exit status of curl after `--max-time`."""

CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
    *("response_headers_conformance", "unsupported_method", "ignored_auth"),
)
"""The checks of schemathesis, without the checks for APIs of resources. `positive_data_acceptance` is left out too:
`publish` refuses an id with other content, and the functions refuse an invented cursor."""
WRONG_IS_REFUSED = "negative_data_rejection"
"""A check for every function except `publish`: in a batch, a wrong event has its own answer in a 207."""

KNOWN = """
[dictionaries.events]
values = {ids}

[parameters]
"path.event_id" = {{ dictionary = "events", probability = 0.5 }}
"""


def examples() -> Iterator[tuple[str, str]]:
    """Yield the curl commands of docs/api.md with their functions."""
    for block in re.findall(r"```sh\n(.*?)```", api_docs.FILE.read_text(), flags=re.DOTALL):
        for command in re.findall(r"^curl (?:.*\\\n)*.*$", block, flags=re.MULTILINE):
            function = re.search(r'"\$([A-Z_]+)/', command)
            assert function is not None, command
            yield function[1].lower(), command


@pytest.fixture(scope="module")
def shell(flow: View) -> dict[str, str]:
    """Return the variables of docs/api.md, for the shared stack."""
    addresses = {name.upper(): function.url for name, function in flow.stack.functions.items()}
    return {
        "PATH": os.environ["PATH"],
        **addresses,
        "TOKEN": token(),
        "EVENT_ID": api_docs.EVENT_ID,
        "GIVEN_ID": api_docs.GIVEN_ID,
    }


@pytest.mark.slow
@pytest.mark.guarantee("R24", "G9")
def test_every_curl_example_of_the_docs_works(flow: View, shell: dict[str, str]) -> None:
    """The later examples find the events of the earlier examples. Without a token, every example fails."""
    everyone = list(examples())
    assert {function for function, _ in everyone} == set(api_docs.APIS)
    for function, command in everyone:
        if function != "publish":
            assert wait_until(lambda: logged(flow), within=40.0, every=0.1)
        run = bash(command, shell)
        ended = TIMED_OUT if "--max-time" in command else 0
        assert run.returncode == ended, f"{command}\n{run.stdout}\n{run.stderr}"
        assert '"status":401' in bash(command, shell | {"TOKEN": "x"}).stdout, command


def bash(command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False)


def logged(flow: View) -> bool:
    """Return True if the event of the examples is in the log and has no outbox entry."""
    flow.relay()
    ids = [document["_id"] for document in flow.database.event_store.find({"aggregate_id": "order-7"}, {"_id": 1})]
    return any(str(event_id) == api_docs.EVENT_ID for event_id in ids)


@pytest.mark.slow
@pytest.mark.guarantee("R24", "R30", "R31")
@pytest.mark.parametrize("function", api_docs.APIS)
def test_schemathesis_finds_no_difference_to_the_description(
    flow: View, spawn: Spawner, function: str, tmp_path: Path
) -> None:
    """Valid and invalid requests get answers as described, and never a 5xx. Every request needs a token.

    Half of the requests for one event name a stored event.
    """
    events = some_events(3)
    flow.publish_all(events)
    assert flow.relayed(events)
    known = tmp_path / "schemathesis.toml"
    known.write_text(KNOWN.format(ids=[event.id for event in events]))
    url = spawn(function, STREAM_S="0.05").url
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(known)]
    command += ["run", f"{url}/openapi.json", "--url", url, "--request-timeout", str(MAX_WAIT_S + 15)]
    checks = CHECKS if function == "publish" else (*CHECKS, WRONG_IS_REFUSED)
    options = ["--checks", ",".join(checks), "--max-examples", "40", "--seed", "1", "--generation-database", "none"]
    options += ["--header", f"Authorization: Bearer {token()}", "--phases", "examples,coverage,fuzzing"]
    run = subprocess.run(
        [*command, *options, "--continue-on-failure", "--no-color"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
