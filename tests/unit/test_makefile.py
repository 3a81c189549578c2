"""The Makefile makes `.venv` once, and says what is missing. A shell script stands for Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev.paths import ROOT

pytestmark = [pytest.mark.dev, pytest.mark.fault("C8")]

PYTHON = """#!/bin/sh
case "$*" in
"-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo venv >> log ;;
"-m pip install"*"-e"*)
    if test -e offline; then echo 'ERROR: No matching distribution found for setuptools>=77' >&2; exit 1; fi
    mkdir installing || exit 1  # fails if another installation runs
    sleep 0.5
    rmdir installing
    echo installed >> log ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def making(clone: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["make", ".venv/made", f"PYTHON={clone / 'python'}"],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def made(clone: Path) -> int:
    process = making(clone)
    process.communicate(timeout=30)
    return process.returncode


def test_two_at_once_make_it_once(clone: Path) -> None:
    """The second one waits for the first. Without a lock, one died inside pip."""
    both = [making(clone), making(clone)]
    ends = [process.communicate(timeout=30) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert (clone / "log").read_text().split() == ["venv", "installed"]
    assert sum("Another make is making .venv" in output for output, _ in ends) == 1


def test_a_changed_pin_makes_it_again(clone: Path) -> None:
    assert made(clone) == 0
    assert made(clone) == 0
    later = (clone / ".venv/made").stat().st_mtime + 5
    os.utime(clone / "constraints.txt", (later, later))
    assert made(clone) == 0
    assert (clone / "log").read_text().split().count("installed") == 2


def test_without_a_network_it_says_so(clone: Path) -> None:
    (clone / "offline").touch()
    process = making(clone)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "needs the network" in errors
    assert not (clone / ".venv/made").exists()


def runs(python: str) -> bool:
    """Tell whether a Python starts: pyenv has commands for versions that are not chosen."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


NAMES = [f"python3.{minor}" for minor in range(12, 20)]
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
NEWER = [name for name in NAMES if shutil.which(name) and runs(name)]
NEWER += [str(python) for name in NAMES for python in PYENV.glob(f"*/bin/{name}") if name not in NEWER]


@pytest.mark.parametrize("python", [sys.executable, *NEWER])
def test_every_python_at_hand_compiles_the_code(python: str, tmp_path: Path) -> None:
    """Other versions run `make demo` where they are: this machine may have one Python only."""
    command = [python, "-W", "error", "-m", "compileall", "-q", "shared", "functions", "dev", "benchmarks", "tests"]
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


@pytest.mark.fault("C7")
def test_ports_are_fixed_or_free(clone: Path) -> None:
    def printed(ports: str) -> "subprocess.CompletedProcess[str]":
        command = ["make", "-n", "dev", f"PORTS={ports}", f"PYTHON={clone / 'python'}"]
        return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)

    assert "dev up --fixed-ports" in " ".join(printed("fixed").stdout.split())
    assert "--fixed-ports" not in printed("").stdout
    assert "PORTS can only be `fixed`" in printed("odd").stderr
