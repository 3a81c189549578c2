"""Child processes: each in a group of its own, logged to a file, gone when we are, ended only by its id."""

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

from dev.proc import is_stopped

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

# Linux sends the parent-death signal when the *thread* that forked ends. One thread that lives as long as the
# interpreter forks every child, so that a child started from a short-lived thread does not die with it.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

_PORTS = range(20_000, 32_000)
_handed_out: set[int] = set()


class StartFailed(RuntimeError):
    """A child ended, or was not ready in time; the message ends with the tail of its log."""


def free_port() -> int:
    """A free loopback port, never the same one twice in this process.

    It lies below Linux's range for outgoing connections. Otherwise a client that keeps trying to reach a
    stopped server could be given that server's port, connect to itself, and keep the server from coming back.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
            return port
    raise RuntimeError("no free port on the loopback interface")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(check: Callable[[], bool], *, within: float, every: float = 0.02) -> bool:
    """Poll `check` until it is true; false if it was not within that many seconds."""
    deadline = time.monotonic() + within
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


class Child:
    """One child process, which may be started again after it ended, on the same ports and with the same log.

    `ready` is asked until it is true. `kill`, `pause` and `resume` act on the child's process group, so
    workers that it forked are included. When this process dies, however it dies, the child gets
    `on_parent_death`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[["Child"], bool],
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
        """The child's id, which is also its group's; an error if it was never started."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Spawn, and wait until ready. Raises `StartFailed`, with nothing left running."""
        self.spawn()
        return self.wait_ready()

    def spawn(self) -> None:
        """Start the process without waiting for it."""
        if self.running:
            raise RuntimeError(f"{self.name} is already running as {self.pid}")
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
        """Wait until the child is ready; if it ends or takes too long, kill it and raise `StartFailed`."""
        wait_until(lambda: not self.running or self._ready(self), within=self._ready_within)
        if not self.running:
            code = self._process.returncode if self._process else None
            raise StartFailed(f"{self.name} ended with exit status {code}\n{self.log_tail()}")
        if not self._ready(self):
            self.kill()
            raise StartFailed(f"{self.name} was not ready after {self._ready_within:g} s\n{self.log_tail()}")
        return self

    def printed(self, line: str) -> bool:
        """Whether the child wrote exactly this line since it was last started."""
        return line.encode() in self._log_since_start().splitlines()

    def log_tail(self, lines: int = 20) -> str:
        """The end of what it wrote since it was last started, after the log file's path."""
        tail = self._log_since_start().decode(errors="replace").splitlines()[-lines:]
        return "\n".join([f"{self.log}:", *(f"  | {line}" for line in tail)])

    def _log_since_start(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def terminate(self, within: float = 10.0) -> None:
        """Ask the child to end (SIGTERM), also if it is paused; kill its group if it has not by then."""
        self.ask_to_end()
        self.end(within)

    def ask_to_end(self) -> None:
        """Send SIGTERM, also if it is paused, and don't wait."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
            self.resume()

    def end(self, within: float) -> None:
        """Wait until it has ended; kill its group if it has not by then."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(within)
            self.kill()

    def kill(self) -> None:
        """End the child's group at once (SIGKILL), as a crash does; nothing if it is gone."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()
            self._group = None  # from now on the number may be another process's

    def pause(self) -> None:
        """Stop the group (SIGSTOP), and return when it stands: its connections stay open and nothing answers."""
        self._signal_group(signal.SIGSTOP)
        if (group := self._group) is not None:
            wait_until(lambda: is_stopped(group), within=5.0)

    def resume(self) -> None:
        """Let a paused group go on (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def restart(self) -> None:
        """End the child if it runs, start it again, and wait until it is ready."""
        self.terminate()
        self.start()

    def _signal_group(self, number: signal.Signals) -> None:
        if self._group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)


def terminate_all(children: Sequence[Child], within: float) -> None:
    """Ask all of them to end, and then wait for each as `Child.terminate` does."""
    for child in children:
        child.ask_to_end()
    for child in children:
        child.end(within)
