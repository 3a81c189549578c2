"""Programs that Go builds from its module proxy: once, into the cache, within a budget of time.

Each module in `go/` (`go.mod`, `go.sum`) pins what is built, so that nothing is taken unchecked. A program that is
in the cache needs no Go. The cache's folder is named after the module's files: a changed pin is another program.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dev.paths import cache_dir

MODULES = Path(__file__).parent / "go"
BUDGET_VARIABLE = "TWOFOLD_GO_BUDGET_S"
"""Seconds that building may take in all; 0 lets only the cache be used."""
DEFAULT_BUDGET_S = 1500.0
ROOM_BYTES = 10 * 2**30
"""What Go's own caches and the programs take, if nothing of it is there yet: 8.4 GiB were measured."""

_WHERE_GO_INSTALLS_ITSELF = Path("/usr/local/go/bin")
_LEAST_PRIORITY = ("nice", "-n", "10")  # a build takes every core for minutes, and nobody waits for it at a keyboard


class Unbuilt(LookupError):
    """A program is not in the cache, and can't be built here and now; the message says why, in one line."""


class BuildFailed(RuntimeError):
    """What is pinned does not compile, or is not what came: a fault of this tree, not of the machine."""


@dataclass(frozen=True)
class Program:
    """A main package of one of the modules in `go/`."""

    module: str
    package: str
    linked: Callable[[str], str] = lambda _: ""
    """What the linker is told, given the version of the module that the package is in."""
    tags: str = ""


def _kubernetes_version(version: str) -> str:
    """The server answers with it at /version; unlinked, it would call itself v0.0.0."""
    return f"-X k8s.io/component-base/version.gitVersion={version}"


PROGRAMS = {
    "etcd": Program("control_plane", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Program("control_plane", "k8s.io/kubernetes/cmd/kube-apiserver", _kubernetes_version),
    "apiserver_receive_adapter": Program("knative", "knative.dev/eventing/cmd/apiserver_receive_adapter"),
    "mtping": Program("knative", "knative.dev/eventing/cmd/mtping"),
    "eventing-webhook": Program("knative", "knative.dev/eventing/cmd/webhook"),
    "serving-webhook": Program("knative", "knative.dev/serving/cmd/webhook"),
    "skaffold": Program(
        "skaffold",
        "github.com/GoogleContainerTools/skaffold/v2/cmd/skaffold",
        lambda version: f"-X github.com/GoogleContainerTools/skaffold/v2/pkg/skaffold/version.version={version}",
        tags="osusergo,netgo,static_build,release,timetzdata",  # as its own Makefile builds it
    ),
}


class Built(NamedTuple):
    """A program, ready to run, and how long it took to build it: 0 if it was in the cache."""

    path: Path
    seconds: float


def budget() -> float:
    """The seconds that building may take in all, from the environment."""
    return float(os.environ.get(BUDGET_VARIABLE, DEFAULT_BUDGET_S))


def go_command() -> str | None:
    """The `go` on the path, or where Go's own archive puts it; None if there is none."""
    return shutil.which("go") or shutil.which("go", path=_WHERE_GO_INSTALLS_ITSELF)


def required_go(module: str) -> tuple[int, ...]:
    """The Go version that a module asks for."""
    found = re.search(r"^go (\S+)$", (MODULES / module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{module}/go.mod names no Go version")
    return version_numbers(found[1])


def version_numbers(version: str) -> tuple[int, ...]:
    """`go1.26.8` or `1.26` as numbers to compare. Pure."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def module_version(module: str, path: str) -> str:
    """The version of the longest module that `path` is in, as `module`'s go.mod requires it."""
    pins = (MODULES / module / "go.mod").read_text()
    required: dict[str, str] = dict(re.findall(r"^(?:require)?\s+([\w./-]+) (v\S+)", pins, re.MULTILINE))
    inside = [name for name in required if path == name or path.startswith(f"{name}/")]
    if not inside:
        raise ValueError(f"{module}/go.mod requires nothing that has {path}")
    return required[max(inside, key=len)]


def cached(name: str) -> Path:
    """Where a program is, or will be."""
    return module_cache(PROGRAMS[name].module) / name


def module_cache(module: str) -> Path:
    """The folder in the cache for what comes from a module as its files pin it now."""
    pins = b"".join((MODULES / module / name).read_bytes() for name in ("go.mod", "go.sum"))
    return cache_dir() / "kubernetes" / f"{module}-{hashlib.sha256(pins).hexdigest()[:16]}"


def program(name: str, deadline: float) -> Built:
    """A program from the cache, built first if need be, by `deadline` on the monotonic clock. Raises `Unbuilt`."""
    target = cached(name)
    if target.exists():
        return Built(target, 0.0)
    go = usable_go(PROGRAMS[name].module)
    check_room(shutil.disk_usage(Path.home()).free, name)
    start = time.monotonic()
    with alone(target, deadline):
        if not target.exists():  # else somebody built it while this one waited
            _build(go, name, target, deadline)
    return Built(target, time.monotonic() - start)


def check_room(free: int, what: str) -> None:
    """Raise `Unbuilt` if so many free bytes are too few: a compiler that runs out of them looks like a broken pin."""
    if free < ROOM_BYTES:
        raise Unbuilt(f"building {what} may take {ROOM_BYTES / 2**30:.0f} GiB, and only {free / 2**30:.1f} are free")


def usable_go(module: str) -> str:
    """A `go` that the module can be built with. Raises `Unbuilt`."""
    go = go_command()
    wanted = required_go(module)
    written = ".".join(map(str, wanted))
    if go is None:
        raise Unbuilt(f"Go {written} or newer is missing")
    said = subprocess.run([go, "env", "GOVERSION"], cwd=MODULES / module, capture_output=True, text=True, check=False)
    if said.returncode != 0 or version_numbers(said.stdout) < wanted:
        raise Unbuilt(f"Go {written} or newer is needed, and {go} is {said.stdout.strip() or 'older'}")
    return go


@contextmanager
def alone(target: Path, deadline: float) -> Iterator[None]:
    """One process at a time works on `target`; the next one finds it done. Raises `Unbuilt` at the deadline."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        while not _locked(lock.fileno()):
            if time.monotonic() > deadline:
                raise Unbuilt(f"another process is still building {target.name}, and {BUDGET_VARIABLE} is used up")
            time.sleep(0.2)
        yield


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _build(go: str, name: str, target: Path, deadline: float) -> None:
    source = PROGRAMS[name]
    fetch = [go, "list", "-deps", "-tags", source.tags, "-f", "{{.ImportPath}}", source.package]
    fetched(_run(fetch, source.module, name, deadline), name)
    unfinished = target.with_suffix(f".{os.getpid()}")
    flags = f"-s -w {source.linked(module_version(source.module, source.package))}".strip()
    command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-tags", source.tags]
    ended = _run([*command, "-o", str(unfinished), source.package], source.module, name, deadline)
    if ended.returncode != 0:
        raise BuildFailed(f"{name} does not compile:\n{ended.stderr[-3000:]}")
    unfinished.rename(target)  # whole or absent, whatever ends this process


def archive(module: str, path: str, deadline: float) -> Path:
    """The folder of a whole module that `module` requires, checked against its go.sum. Raises `Unbuilt`."""
    go = usable_go(module)
    command = [go, "mod", "download", "-json", f"{path}@{module_version(module, path)}"]
    return Path(json.loads(fetched(_run(command, module, path, deadline), path))["Dir"])


def fetched(ended: "subprocess.CompletedProcess[str]", what: str) -> str:
    """What a command printed that downloads. Raises `Unbuilt`, and `BuildFailed` if what came is not what is pinned."""
    if "SECURITY ERROR" in ended.stderr:
        raise BuildFailed(f"{what} is not what go.sum pins:\n{ended.stderr[-3000:]}")
    if ended.returncode != 0:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-1:]
        raise Unbuilt(f"Go's module proxy did not give {what}: {' '.join(last)}")
    return ended.stdout


def _run(command: list[str], module: str, what: str, deadline: float) -> "subprocess.CompletedProcess[str]":
    """Run a command of Go's in a module's folder. Raises `Unbuilt` at the deadline; its compilers end too."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise Unbuilt(f"{what} is not in the cache, and {BUDGET_VARIABLE} ({budget():g} s) leaves no time to build it")
    process = subprocess.Popen(
        [*_LEAST_PRIORITY, *command],
        cwd=MODULES / module,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=left)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Unbuilt(f"building {what} took longer than {BUDGET_VARIABLE} ({budget():g} s) allows") from error
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
