"""The load generator in its own process: wrk if it is on the PATH, else `benchmarks.generator`, which is as fast."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import LoadResult
from dev.paths import ROOT

CONNECTIONS = 64
_SCRIPT = Path(__file__).with_name("requests.lua")
_GRACE_S = 60.0


class LoadFailed(RuntimeError):
    """The load generator failed. The message is its output."""


@dataclass(frozen=True)
class LoadGenerator:
    """A load generator with 64 connections. A connection has one request at a time."""

    name: str
    wrk: str | None

    @classmethod
    def here(cls) -> "LoadGenerator":
        """Return the generator for this machine."""
        wrk = shutil.which("wrk")
        return cls("wrk" if wrk else "own generator (wrk is not on the PATH)", wrk)

    def run(self, port: int, requests: Path, seconds: float) -> LoadResult:
        """Send the requests of a file once, for `seconds` (wrk rounds them)."""
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


def report(output: str) -> LoadResult:
    """Read the line of JSON at the end of the generator's output. Raises `LoadFailed` without such a line."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadFailed(f"no report in the generator's output\n{output}")
    return LoadResult(**json.loads(lines[-1]))
