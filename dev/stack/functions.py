"""The functions, each in a functions-framework process with the command of its container."""

import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from dev.paths import ROOT
from dev.process.child import Child, plain_environment
from dev.process.proc import processes

FUNCTIONS = ("publish", "store", "dead_letters", "relay", "pod_events", "query", "admin", "audit")
"""The functions of a whole stack: the folders of `functions/`."""


class FunctionProcess(Child):
    """A gunicorn master and its `workers`. The port stays the same after a restart."""

    def __init__(
        self,
        name: str,
        port: int,
        env: Mapping[str, str],
        *,
        logs: Path,
        workers: int = 1,
        ready_within: float = 30.0,
        probe: str = "/healthz",
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.environment = plain_environment() | _framework(name, port, workers) | dict(env)
        super().__init__(
            name,
            [sys.executable, "-m", "functions_framework"],
            log=logs / f"{name}.log",
            ready=lambda _: self.healthy(probe),
            ready_within=ready_within,
            cwd=ROOT / "functions" / name,
            env=self.environment,
            on_parent_death=signal.SIGTERM,  # gunicorn's workers survive a SIGKILL of their master
        )

    def healthy(self, probe: str = "/healthz") -> bool:
        """Return True if the probe is answered with 200. `/healthz` needs MongoDB once, `/livez` only the process."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=2.0)) as connection:
            try:
                connection.request("GET", probe)
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, HTTPException):
                return False

    @property
    def worker_pids(self) -> list[int]:
        """The ids of the processes that serve requests now."""
        return sorted(process.id for process in processes() if process.parent == self.pid)

    def terminate(self, within: float = 20.0) -> None:
        """Send SIGTERM, as Kubernetes does, and wait: the function still writes and answers accepted requests."""
        super().terminate(within)


def _framework(name: str, port: int, workers: int) -> dict[str, str]:
    """Return the variables of the Dockerfile, with loopback as the only interface."""
    return {
        "FUNCTION_TARGET": name,
        "FUNCTION_SOURCE": "main.py",
        "FUNCTION_USE_ASGI": "true",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": str(workers),
    }
