"""Build programs from Go's module proxy into the cache, once and within a time budget.

Each module in `go/` pins its programs in `go.mod` and `go.sum`. A cached program needs no Go. The cache's folder
has the hash of these files in its name: a changed pin gives a new program.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from dev.paths import cache_dir
from dev.process.child import wait_until

MODULES = Path(__file__).parent / "go"
BUDGET_VARIABLE = "TWOFOLD_GO_BUDGET_S"
"""The seconds for all builds together. With 0, only the cache is used."""
DEFAULT_BUDGET_S = 1500.0
BUILD_BYTES = 10 * 2**30
"""The disk space for Go's caches and the programs. A first build took 8.4 GiB."""

_GO_INSTALLATION = Path("/usr/local/go/bin")
_LOW_PRIORITY = ("nice", "-n", "10")  # a build uses every core for minutes


class Unbuilt(LookupError):
    """A program is not in the cache, and this machine cannot build it now. The message is a line with the reason."""


class BuildFailed(RuntimeError):
    """A pinned program does not compile, or differs from its hash. The fault is in this tree, not in the machine."""


class Program(NamedTuple):
    """A main package of a module in `go/`."""

    module: str
    package: str
    version_variable: str = ""
    """The Go variable that the linker sets to the package's version. Otherwise a server reports v0.0.0."""
    tags: str = ""


PROGRAMS = {
    "etcd": Program("control_plane", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Program(
        "control_plane", "k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/component-base/version.gitVersion"
    ),
    "apiserver_receive_adapter": Program("knative", "knative.dev/eventing/cmd/apiserver_receive_adapter"),
    "mtping": Program("knative", "knative.dev/eventing/cmd/mtping"),
    "eventing-webhook": Program("knative", "knative.dev/eventing/cmd/webhook"),
    "serving-webhook": Program("knative", "knative.dev/serving/cmd/webhook"),
    "skaffold": Program(
        "skaffold",
        "github.com/GoogleContainerTools/skaffold/v2/cmd/skaffold",
        "github.com/GoogleContainerTools/skaffold/v2/pkg/skaffold/version.version",
        tags="osusergo,netgo,static_build,release,timetzdata",  # the tags of Skaffold's own Makefile
    ),
}


def budget() -> float:
    """Return the seconds for all builds together, from the environment."""
    return float(os.environ.get(BUDGET_VARIABLE, DEFAULT_BUDGET_S))


def required_go(module: str) -> tuple[int, ...]:
    """Return the Go version that a module requires."""
    found = re.search(r"^go (\S+)$", (MODULES / module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{module}/go.mod names no Go version")
    return version_numbers(found[1])


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as `go1.26.8` or `1.26`, for comparison. Pure."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def module_version(module: str, path: str) -> str:
    """Return the version in `module`'s go.mod of the module that contains the package `path`."""
    pins = (MODULES / module / "go.mod").read_text()
    required: dict[str, str] = dict(re.findall(r"^(?:require)?\s+([\w./-]+) (v\S+)", pins, re.MULTILINE))
    inside = [name for name in required if path == name or path.startswith(f"{name}/")]
    if not inside:
        raise ValueError(f"{module}/go.mod requires no module with the package {path}")
    return required[max(inside, key=len)]


def module_cache(module: str) -> Path:
    """Return the cache's folder for a module with its present pins."""
    pins = b"".join((MODULES / module / name).read_bytes() for name in ("go.mod", "go.sum"))
    return cache_dir() / "kubernetes" / f"{module}-{hashlib.sha256(pins).hexdigest()[:16]}"


def program(name: str, deadline: float) -> tuple[Path, float]:
    """Return a program and the seconds of its build, 0 for a cached program. Raises `Unbuilt`.

    `deadline` is a time of the monotonic clock.
    """
    target = module_cache(PROGRAMS[name].module) / name
    if target.exists():
        return target, 0.0
    go = usable_go(PROGRAMS[name].module)
    check_disk_space(shutil.disk_usage(Path.home()).free, name)
    start = time.monotonic()
    with alone(target, deadline):
        if not target.exists():  # another process may have built it during the wait
            _build(go, name, target, deadline)
    return target, time.monotonic() - start


def check_disk_space(free: int, name: str) -> None:
    """Raise `Unbuilt` for too few free bytes: a compiler without disk space looks like a broken pin."""
    if free < BUILD_BYTES:
        raise Unbuilt(f"building {name} may take {BUILD_BYTES / 2**30:.0f} GiB, and only {free / 2**30:.1f} are free")


def usable_go(module: str) -> str:
    """Return a `go` command that can build the module. Raises `Unbuilt`."""
    go = shutil.which("go") or shutil.which("go", path=_GO_INSTALLATION)
    wanted = required_go(module)
    needed = f"Go {'.'.join(map(str, wanted))} or newer is"
    if go is None:
        raise Unbuilt(f"{needed} missing")
    run = subprocess.run([go, "env", "GOVERSION"], cwd=MODULES / module, capture_output=True, text=True, check=False)
    if run.returncode != 0 or version_numbers(run.stdout) < wanted:
        raise Unbuilt(f"{needed} needed, and {go} is {run.stdout.strip() or 'older'}")
    return go


@contextmanager
def alone(target: Path, deadline: float) -> Iterator[None]:
    """Let only one process at a time work on `target`. Raises `Unbuilt` at the deadline."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        if not wait_until(lambda: _locked(lock.fileno()), within=deadline - time.monotonic(), every=0.2):
            raise Unbuilt(f"another process is still building {target.name}, and {BUDGET_VARIABLE} is used up")
        yield


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _build(go: str, name: str, target: Path, deadline: float) -> None:
    module, package, variable, tags = PROGRAMS[name]
    fetch = [go, "list", "-deps", "-tags", tags, "-f", "{{.ImportPath}}", package]
    fetched(_run(fetch, module, name, deadline), name)
    unfinished = target.with_suffix(f".{os.getpid()}")
    flags = "-s -w" + (f" -X {variable}={module_version(module, package)}" if variable else "")
    command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-tags", tags]
    ended = _run([*command, "-o", str(unfinished), package], module, name, deadline)
    if ended.returncode != 0:
        raise BuildFailed(f"{name} does not compile:\n{ended.stderr[-3000:]}")
    unfinished.rename(target)  # so the program is complete or absent


def archive(module: str, path: str, deadline: float) -> Path:
    """Return the folder of a whole module that `module` requires, checked against go.sum. Raises `Unbuilt`."""
    command = [usable_go(module), "mod", "download", "-json", f"{path}@{module_version(module, path)}"]
    return Path(json.loads(fetched(_run(command, module, path, deadline), path))["Dir"])


def fetched(ended: "subprocess.CompletedProcess[str]", name: str) -> str:
    """Return the output of a download. Raises `Unbuilt`, or `BuildFailed` for content with another hash."""
    if "SECURITY ERROR" in ended.stderr:
        raise BuildFailed(f"{name} differs from its hash in go.sum:\n{ended.stderr[-3000:]}")
    if ended.returncode != 0:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-1:]
        raise Unbuilt(f"Go's module proxy did not give {name}: {' '.join(last)}")
    return ended.stdout


def _run(command: list[str], module: str, name: str, deadline: float) -> "subprocess.CompletedProcess[str]":
    """Run a Go command in a module's folder. At the deadline, kill its process group and raise `Unbuilt`."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise Unbuilt(f"{name} is not in the cache, and {BUDGET_VARIABLE} ({budget():g} s) leaves no time to build it")
    process = subprocess.Popen(
        [*_LOW_PRIORITY, *command],
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
            raise Unbuilt(f"building {name} took longer than {BUDGET_VARIABLE} ({budget():g} s) allows") from error
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
