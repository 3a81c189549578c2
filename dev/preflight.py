"""Check that this machine can run the stack. Uses the standard library only: make calls it before .venv exists."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
    "libgcc_s.so.1": "libgcc-s1",
    "libresolv.so.2": "libc6",
    "libm.so.6": "libc6",
    "libc.so.6": "libc6",
}
"""The libraries of mongod 6.0, and their packages in Debian 12 and Ubuntu 22.04."""

MINIMUM_GLIBC = (2, 35)
MINIMUM_PYTHON = (3, 11)


class Unfit(RuntimeError):
    """This machine lacks something. The message lists everything that is missing."""


@dataclass(frozen=True)
class Machine:
    """The facts that the checks need. A test passes the facts of an imaginary machine."""

    system: str
    architecture: str
    python: tuple[int, int]
    glibc: tuple[int, int] | None

    @classmethod
    def this(cls) -> "Machine":
        """Return the facts of this machine."""
        return cls(platform.system(), platform.machine(), sys.version_info[:2], _glibc())


def _glibc() -> tuple[int, int] | None:
    name, version = platform.libc_ver()
    if name != "glibc":
        return None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def missing_libraries(ldd_output: str) -> list[str]:
    """Return the libraries that `ldd` did not find, in its order and without repeats. Pure."""
    missing = [line.split("=>")[0].strip() for line in ldd_output.splitlines() if "=> not found" in line]
    return list(dict.fromkeys(missing))


def library_complaints(missing: list[str]) -> list[str]:
    """Return a line for each missing library, and a command that installs the known packages. Pure."""
    lines = [f"mongod needs {name}, from the package {PACKAGES.get(name, 'unknown')}" for name in missing]
    known = sorted({PACKAGES[name] for name in missing if name in PACKAGES})
    return [*lines, f"on Debian or Ubuntu: sudo apt-get install {' '.join(known)}"] if known else lines


def machine_complaints(machine: Machine) -> list[str]:
    """Return the reasons why the machine cannot run the stack. Pure."""
    complaints = []
    if machine.system != "Linux" or machine.architecture != "x86_64":
        here = f"{machine.system} {machine.architecture}"
        complaints.append(f"the servers' wheels are for Linux on x86-64, not {here}")
    if machine.python < MINIMUM_PYTHON:
        complaints.append(_too_old("Python", MINIMUM_PYTHON, machine.python))
    if machine.glibc is None:
        complaints.append("mongod needs glibc: this system has another C library (musl?)")
    elif machine.glibc < MINIMUM_GLIBC:
        complaints.append(_too_old("glibc", MINIMUM_GLIBC, machine.glibc))
    return complaints


def _too_old(name: str, minimum: tuple[int, int], found: tuple[int, int]) -> str:
    return f"{name} {minimum[0]}.{minimum[1]} or newer is needed, not {found[0]}.{found[1]}"


def _ldd(binary: Path) -> str:
    if shutil.which("ldd") is None:
        raise Unfit("ldd is missing, from the package libc-bin")
    run = subprocess.run(
        ["ldd", str(binary)], capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    return run.stdout


def check(binary: Path, machine: Machine | None = None) -> None:
    """Raise `Unfit` if this machine lacks anything that the stack or `binary`, a mongod, needs."""
    complaints = machine_complaints(machine or Machine.this())
    complaints += library_complaints(missing_libraries(_ldd(binary)))
    if complaints:
        raise Unfit("\n  - ".join(["this machine can't run the local stack:", *complaints]))
