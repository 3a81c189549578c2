"""Start child processes that log to a file and never outlive this process."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

from dev.paths import ROOT
from dev.process.proc import is_stopped

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

# Linux sends the parent-death signal when the *thread* that forked ends. So one long-lived thread forks every child:
# a child that a short-lived thread asks for survives this thread.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

_PORTS = range(20_000, 32_000)
_used_ports: set[int] = set()

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


def plain_environment() -> dict[str, str]:
    """Return this process's environment without any setting of Twofold.

    `PYTHONPATH` is this tree's `shared`: in a copy of the tree, the copy's `twofold` runs.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT / "shared")}


class StartFailed(RuntimeError):
    """A child ended, or was not ready in time. The message ends with the tail of its log file."""


def free_port() -> int:
    """Return a free loopback port, never the same port twice in this process.

    The port lies below Linux's range for outgoing connections. In that range, a client that retries a stopped
    server's port could get this port as its own, connect to itself, and keep the server from starting again.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        if port not in _used_ports and _is_free(port):
            _used_ports.add(port)
            return port
    raise RuntimeError(f"127.0.0.1 has no free port in {_PORTS.start}-{_PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(check: Callable[[], bool], *, within: float, every: float = 0.02) -> bool:
    """Poll `check` every `every` seconds until it is true. Return False after `within` seconds."""
    deadline = time.monotonic() + within
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


class Child:
    """A child process, which can be started again with the same command and log.

    `ready` is polled until it is true. `kill`, `pause` and `resume` act on the process group, and so on forked
    workers too. The kernel sends the child `on_parent_death` when this process ends for any reason.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[["Child"], bool] = lambda _: True,
        ready_within: float = 30.0,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_parent_death: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._ready = ready
        self._ready_within = ready_within
        self._cwd = cwd
        self._env = dict(env) if env is not None else None
        self._on_parent_death = on_parent_death
        self._process: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id, which is also the process group's id. Raises `RuntimeError` before the first start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True from the start to the end of the process."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the process and wait until it is ready. Raises `StartFailed`, and then no process is left."""
        self.spawn()
        return self.wait_ready()

    def spawn(self) -> None:
        """Start the process without waiting."""
        if self.running:
            raise RuntimeError(f"{self.name} is already running as process {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = _SPAWNER.submit(self._popen, log.fileno()).result()
        self._group = self._process.pid

    def _popen(self, log: int) -> subprocess.Popen[bytes]:
        parent, on_parent_death = os.getpid(), int(self._on_parent_death)

        def die_with_the_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, on_parent_death, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        return subprocess.Popen(
            self._command,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_the_parent,  # noqa: PLW1509  # only async-signal-safe calls; see _SPAWNER
        )

    def wait_ready(self) -> Self:
        """Wait until the process is ready. Kills a late process; raises `StartFailed` for an ended or late one."""
        wait_until(lambda: not self.running or self._ready(self), within=self._ready_within)
        if not self.running:
            code = self._process.returncode if self._process else None
            raise StartFailed(f"{self.name} ended with exit status {code}\n{self.log_tail()}")
        if not self._ready(self):
            self.kill()
            raise StartFailed(f"{self.name} was not ready after {self._ready_within:g} s\n{self.log_tail()}")
        return self

    def printed(self, line: str) -> bool:
        """Return True if the process wrote exactly this line since its last start."""
        return line.encode() in self._log_since_start().splitlines()

    def log_tail(self, lines: int = 20) -> str:
        """Return the log's path and the last lines since the last start."""
        tail = self._log_since_start().decode(errors="replace").splitlines()[-lines:]
        return "\n".join([f"{self.log}:", *(f"  | {line}" for line in tail)])

    def _log_since_start(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def terminate(self, within: float = 10.0) -> None:
        """Send SIGTERM, also to a paused process. Kill the group if the process still runs after `within` seconds."""
        self.ask_to_end()
        self.end(within)

    def ask_to_end(self) -> None:
        """Send SIGTERM, also to a paused process, without waiting."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
            self.resume()

    def end(self, within: float) -> None:
        """Wait for the process's end, and kill its group after `within` seconds."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(within)
            self.kill()

    def kill(self) -> None:
        """End the process group at once (SIGKILL), like a crash. Do nothing after the end."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()
            self._group = None  # the kernel may give the number to another process from now on

    def stop(self) -> None:
        """Kill a server for good. Its data is removed next, so an orderly end would gain nothing."""
        self.kill()

    def pause(self) -> None:
        """Stop the group (SIGSTOP) and wait until it stands: connections stay open and get no answer."""
        self._signal_group(signal.SIGSTOP)
        if (group := self._group) is not None:
            wait_until(lambda: is_stopped(group), within=5.0)

    def resume(self) -> None:
        """Continue a paused group (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def restart(self) -> None:
        """End the process if it runs, start it again, and wait until it is ready."""
        self.terminate()
        self.start()

    def _signal_group(self, number: signal.Signals) -> None:
        if self._group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)


def terminate_all(children: Sequence[Child], within: float) -> None:
    """Send SIGTERM to every child, then wait for every child as `Child.terminate` does."""
    for child in children:
        child.ask_to_end()
    for child in children:
        child.end(within)
