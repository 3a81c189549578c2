"""The functions, each in a functions-framework process of its own, started as its container starts it."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from dev.paths import ROOT
from dev.proc import processes
from dev.processes import Child

FUNCTIONS = ("publish", "store", "dead_letters", "relay", "pod_events", "query", "admin", "audit")
"""What a stack starts unless told otherwise; each has a folder in `functions/`."""

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


def plain_environment() -> dict[str, str]:
    """This process's environment without anything that could be taken for a setting of ours.

    `twofold` comes from this tree, as a function's image has it beside the function: a copy of the tree runs its own.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT / "shared")}


class FunctionProcess:
    """One function behind gunicorn's master and its `workers`, on one port that outlives it."""

    def __init__(
        self,
        name: str,
        port: int,
        env: Mapping[str, str],
        *,
        logs: Path,
        workers: int = 1,
        ready_within: float = 30.0,
    ) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.environment = plain_environment() | self._framework(name, port, workers) | dict(env)
        self.child = Child(
            name,
            [sys.executable, "-m", "functions_framework"],
            log=logs / f"{name}.log",
            ready=lambda _: self.healthy(),
            ready_within=ready_within,
            cwd=ROOT / "functions" / name,
            env=self.environment,
            on_parent_death=signal.SIGTERM,  # gunicorn's workers outlive a master that was killed
        )

    @staticmethod
    def _framework(name: str, port: int, workers: int) -> dict[str, str]:
        """What the Dockerfile sets, but for the interface: loopback, not all of them."""
        return {
            "FUNCTION_TARGET": name,
            "FUNCTION_SOURCE": "main.py",
            "FUNCTION_USE_ASGI": "true",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKERS": str(workers),
        }

    def healthy(self) -> bool:
        """Whether `GET /healthz` answers 200."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=2.0)) as connection:
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, HTTPException):
                return False

    @property
    def pid(self) -> int:
        """The gunicorn master's process id."""
        return self.child.pid

    @property
    def worker_pids(self) -> list[int]:
        """The ids of the processes that serve requests now."""
        return sorted(process.id for process in processes() if process.parent == self.pid)

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        self.child.start()

    def terminate(self, within: float = 20.0) -> None:
        """Ask the master to end, as Kubernetes does, and wait: what was accepted is written and answered."""
        self.child.terminate(within)

    def kill(self) -> None:
        """End master and workers at once, as a node that dies does."""
        self.child.kill()

    def pause(self) -> None:
        """Freeze master and workers."""
        self.child.pause()

    def resume(self) -> None:
        """Let them go on."""
        self.child.resume()

    def restart(self) -> None:
        """End it if it runs, and start it again on the same port."""
        self.child.restart()
