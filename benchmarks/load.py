"""The load: from outside, in a process of its own. wrk where it is, else a generator of our own that is as strong."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Load
from dev.paths import ROOT

CONNECTIONS = 64
_SCRIPT = Path(__file__).with_name("requests.lua")
_GRACE_S = 60.0


class LoadFailed(RuntimeError):
    """The load generator itself did not do its work; the message is what it said."""


@dataclass(frozen=True)
class Generator:
    """A load generator: 64 connections, each with one request under way, as fast as they are answered."""

    name: str
    wrk: str | None

    @classmethod
    def here(cls) -> "Generator":
        """The best one that this machine has."""
        wrk = shutil.which("wrk")
        return cls("wrk" if wrk else "own generator (wrk is not on the PATH)", wrk)

    def run(self, port: int, requests: Path, seconds: float) -> Load:
        """Send the requests of a file, each once, for that many seconds (wrk: rounded to whole ones)."""
        run = subprocess.run(
            self._command(port, requests, seconds),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE_S,
            check=False,
        )
        if run.returncode:
            raise LoadFailed(f"{self.name} ended with {run.returncode}\n{run.stdout}{run.stderr}")
        return report(run.stdout)

    def _command(self, port: int, requests: Path, seconds: float) -> list[str]:
        if self.wrk is None:
            return [sys.executable, "-m", "benchmarks.generator", str(port), str(requests), str(seconds)]
        options = ["--threads", "1", "--connections", str(CONNECTIONS), "--timeout", "30s", "--latency"]
        duration = f"{max(1, round(seconds))}s"
        url = f"http://127.0.0.1:{port}/"
        return [self.wrk, *options, "--duration", duration, "--script", str(_SCRIPT), url, "--", str(requests)]


def report(output: str) -> Load:
    """What the generator counted: the JSON line at the end of its output. Raises `LoadFailed` if there is none."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadFailed(f"no report in the generator's output\n{output}")
    return Load(**json.loads(lines[-1]))
