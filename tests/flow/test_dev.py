"""`make dev` in a terminal: a user copies the printed commands."""

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dev.paths import ROOT

WITHIN_S = 90.0


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[list[str]]:
    """Return the lines of `dev up` in a terminal of 80 columns. Ctrl-C ends the command after the test."""
    ours, its = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("MONGODB_URI", "KUBECONFIG")}
    program = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's `&` ignores SIGINT
        "from dev.__main__ import app\n"
        "app(['up'])\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | {"COLUMNS": "80"},
        stdin=its,
        stdout=its,
        stderr=its,
        close_fds=True,
    )
    os.close(its)
    try:
        yield _until("Ctrl-C ends everything.", ours)
        owner.send_signal(signal.SIGINT)
        assert owner.wait(30) == 0
    finally:
        owner.kill()
        owner.wait()
        os.close(ours)


def _until(last: str, terminal: int) -> list[str]:
    output, deadline = b"", time.monotonic() + WITHIN_S
    while last.encode() not in output:
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, output.decode(errors="replace")
        try:
            output += os.read(terminal, 65536)
        except OSError:  # the command has ended
            pytest.fail(output.decode(errors="replace"))
    return output.decode().replace("\r", "").splitlines()


@pytest.mark.slow
@pytest.mark.fault("C7")
@pytest.mark.guarantee("G1")
def test_the_printed_commands_publish_an_event_and_show_it_in_both_collections(printed: list[str]) -> None:
    """The test parses the curl command as a shell does, and sends its request."""
    token = next(line for line in printed if line.startswith("TOKEN=")).removeprefix("TOKEN=")
    _, _, url, *rest = shlex.split(next(line for line in printed if line.startswith("curl ")))
    options = list(zip(rest[::2], rest[1::2], strict=True))
    headers = dict(value.replace("$TOKEN", token).split(": ", 1) for option, value in options if option == "-H")
    (body,) = (value for option, value in options if option == "-d")
    answer = httpx.post(url, headers=headers, content=body)
    assert (answer.status_code, answer.json()["result"]) == (202, "accepted")
    sourced = subprocess.run(
        ["sh", "-c", f'{printed[printed.index(". .twofold/stack.env")]}; echo "$PUBLISH $STORE $TOKEN"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    stores = next(line for line in printed if line.startswith("store ")).split()
    assert sourced.stdout.split() == [url, stores[1], token]
    shows = [line for line in printed if " dev show " in line]
    assert len(shows) == 2
    for command in shows:
        shown = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert headers["ce-id"] in shown.stdout
        assert "hello" in shown.stdout
