"""Build and run the image of the Dockerfile without Docker: a folder stands for the image's file system.

Each step of the Dockerfile is read and executed. The Python of this process replaces the base image.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from dockerfile_parse import DockerfileParser

from dev.paths import ROOT
from dev.process.child import Child, StartFailed

STEP_WITHIN_S = 600.0

_KEPT = re.compile(r"HOME|LANG|LC_ALL|PIP_\w+|\w+_PROXY|\w+_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE")
"""The variables of this machine that pip needs to find packages."""

_IMAGE_PATH = re.compile(r"(?<![\w./])/(?=(?:venv|app|build|sync)\b)")
"""The first slash of a path below the image's own folders. Other absolute paths belong to this machine."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """A stage of the Dockerfile, after the steps so far."""

    root: Path
    """The folder that stands for `/`."""
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: tuple[int, int] = (0, 0)
    command: list[str] = field(default_factory=list)
    kept: bool = False
    """True if an earlier build with the same dependencies has filled `root`."""

    def below(self, path: str) -> Path:
        """Return the place of a path of the image."""
        return self.root / str(Path(self.workdir, path)).lstrip("/")

    def here(self, text: str) -> str:
        """Return `text` with the image's own paths turned into paths below `root`."""
        return _IMAGE_PATH.sub(f"{self.root}/", text)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process in the image."""
        return {name: self.here(value) for name, value in self.environment.items()}

    def seal(self) -> None:
        """Make every file and folder read-only."""
        _set_writable(self.root, writable=False)

    def remove(self) -> None:
        """Delete the image, sealed or not."""
        _set_writable(self.root, writable=True)
        shutil.rmtree(self.root)

    def run_as_user(self, command: Sequence[str]) -> list[str]:
        """Return `command` for the image's user, without capabilities. Only root can change the user."""
        if os.geteuid() != 0:
            return list(command)
        user, group = map(str, self.user)
        limits = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--pdeathsig", "TERM"]
        return ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", *limits, "--", *command]

    def container(
        self,
        name: str,
        environment: Mapping[str, str],
        *,
        logs: Path,
        ready: Callable[[Child], bool],
        command: Sequence[str] | None = None,
    ) -> Child:
        """Return a process of the image, not started. Without `command`, it runs the image's command."""
        words = [self.here(part) for part in command or self.command]
        program = shutil.which(words[0], path=self.variables["PATH"]) or words[0]
        return Child(
            name,
            self.run_as_user([program, *words[1:]]),
            log=logs / f"{name}.log",
            ready=ready,
            cwd=self.below("."),
            env=self.variables | dict(environment),
            on_parent_death=signal.SIGTERM,
        )


@dataclass
class Builder:
    """A builder of images. Functions with equal dependencies share their installation below `kept`."""

    kept: Path

    def build(self, function: str, root: Path) -> Stage:
        """Build a function's image in the new folder `root` and return its last stage. Raises `StartFailed`."""
        stages: dict[str, Stage] = {}
        stage = Stage(root, {})
        for step in DockerfileParser(path=str(ROOT / "Dockerfile")).structure:
            instruction, value = step["instruction"], step["value"]
            if instruction == "FROM":
                name = value.partition(" AS ")[2]
                stages[name] = stage = self._begin(function, self.kept / _key(function) if name else root)
            else:
                _step(instruction, value, stage, stages)
        return stage

    def _begin(self, function: str, root: Path) -> Stage:
        kept = root.exists()
        root.mkdir(parents=True, exist_ok=True)
        return Stage(root, self._base_image(), {"FUNCTION": function}, kept=kept)

    def _base_image(self) -> dict[str, str]:
        """Return the environment of a base image: Debian's programs and a Python for every user.

        Another user cannot run a Python in a home folder, so this Python is copied without its packages.
        """
        prefix, target = Path(sys.base_prefix), self.kept / "python"
        if prefix == Path("/usr"):
            return {"PATH": _SYSTEM_PATH}
        if not target.exists():
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__")
            shutil.copytree(prefix / "lib" / version, target / "lib" / version, symlinks=True, ignore=ignored)
            for library in prefix.glob("lib/libpython*.so*"):
                shutil.copy(library, target / "lib", follow_symlinks=False)
            (target / "bin").mkdir()
            for name in (version, "python", "python3"):
                shutil.copy(prefix / "bin" / version, target / "bin" / name)
        return {"PATH": f"{target}/bin:{_SYSTEM_PATH}", "LD_LIBRARY_PATH": f"{target}/lib"}


def _key(function: str) -> str:
    requirements = (ROOT / "functions" / function / "requirements.txt").read_text()
    return re.sub(r"\W+", "-", requirements).strip("-") or "plain"


def _step(instruction: str, value: str, stage: Stage, stages: Mapping[str, Stage]) -> None:
    filled = stage.environment | stage.arguments
    match instruction:
        case "ENV":
            for pair in shlex.split(value):
                name, _, text = pair.partition("=")
                stage.environment[name] = Template(text).substitute(filled)
        case "WORKDIR":
            stage.workdir = str(Path(stage.workdir, Template(value).substitute(filled)))
            stage.below(".").mkdir(parents=True, exist_ok=True)
        case "COPY" if not stage.kept:
            _copy(stage, Template(value).substitute(filled), stages)
        case "RUN" if not stage.kept:
            _run(stage, value)
        case "USER":
            user, _, group = value.partition(":")
            stage.user = (int(user), int(group))
        case "CMD":
            stage.command = json.loads(value)
        case "COPY" | "RUN" | "ARG" | "EXPOSE" | "COMMENT":
            pass
        case _:
            raise StartFailed(f"tests/manifests/image.py cannot execute {instruction} of the Dockerfile")


def _copy(stage: Stage, value: str, stages: Mapping[str, Stage]) -> None:
    *sources, target = shlex.split(value)
    root, ignored = ROOT, shutil.ignore_patterns("__pycache__", "*.egg-info")  # as .dockerignore
    if sources[0].startswith("--from="):
        root, ignored = stages[sources.pop(0).removeprefix("--from=")].root, shutil.ignore_patterns()
    for source in sources:
        origin, goal = root / source.lstrip("/"), stage.below(target)
        if origin.is_dir():
            shutil.copytree(origin, goal, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(origin, goal / origin.name if target.endswith("/") else goal)


def _run(stage: Stage, value: str) -> None:
    kept = {name: text for name, text in os.environ.items() if _KEPT.fullmatch(name)}
    run = subprocess.run(
        ["sh", "-c", stage.here(value)],
        cwd=stage.below("."),
        env=kept | stage.variables | stage.arguments,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_WITHIN_S,
        check=False,
    )
    if run.returncode != 0:
        output = (run.stdout + run.stderr)[-3000:]
        raise StartFailed(f"the Dockerfile's RUN {value} ended with exit status {run.returncode}\n{output}")


def _set_writable(root: Path, *, writable: bool) -> None:
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if writable else mode & ~0o222)
