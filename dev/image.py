"""What the Dockerfile says, done without Docker: its steps, one by one, in folders that stand for file systems.

The Dockerfile is read, never repeated: what it copies, installs, sets and starts is what happens here. In the place of
its base image is the Python that runs this; the image's own absolute paths are those below a folder.
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
from dev.processes import Child, StartFailed

STEP_WITHIN_S = 600.0

_KEPT = re.compile(r"HOME|LANG|LC_ALL|PIP_\w+|\w+_PROXY|\w+_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE")
"""Of this machine's environment: what pip needs to find packages."""

_OWN = "venv|app|build|sync"
"""The image's own top-level folders. Any other absolute path is this machine's."""
_OWN_PATH = re.compile(rf"(?<![\w./])/(?=(?:{_OWN})\b)")


@dataclass
class Stage:
    """A stage of the Dockerfile, as far as it has come."""

    root: Path
    """What stands for `/`."""
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: tuple[int, int] = (0, 0)
    command: list[str] = field(default_factory=list)
    kept: bool = False
    """Its files are there already, made for another function that installs the same."""

    def below(self, path: str) -> Path:
        """Where a path of the image is."""
        return self.root / str(Path(self.workdir, path)).lstrip("/")

    def here(self, text: str) -> str:
        """`text` with the image's own absolute paths turned into those below `root`."""
        return _OWN_PATH.sub(f"{self.root}/", text)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process in it."""
        return {name: self.here(value) for name, value in self.environment.items()}

    def seal(self) -> None:
        """Let nobody write below `root`."""
        _for_writing(self.root, allowed=False)

    def remove(self) -> None:
        """Delete it, sealed or not."""
        _for_writing(self.root, allowed=True)
        shutil.rmtree(self.root)

    def run_as_user(self, command: Sequence[str]) -> list[str]:
        """`command` as the image's user, without any capability; as this process's own user unless that is root."""
        if os.geteuid() != 0:
            return list(command)
        user, group = map(str, self.user)
        rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--pdeathsig", "TERM"]
        return ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", *rights, "--", *command]

    def container(
        self,
        name: str,
        environment: Mapping[str, str],
        *,
        logs: Path,
        ready: Callable[[Child], bool],
        command: Sequence[str] | None = None,
    ) -> Child:
        """A process of the image, not started: its command or `command`, its user, its environment and this one."""
        started = [self.here(part) for part in command or self.command]
        program = shutil.which(started[0], path=self.variables["PATH"]) or started[0]
        return Child(
            name,
            self.run_as_user([program, *started[1:]]),
            log=logs / f"{name}.log",
            ready=ready,
            cwd=self.below("."),
            env=self.variables | dict(environment),
            on_parent_death=signal.SIGTERM,
        )


@dataclass
class Builder:
    """Builds images. What installs the same dependencies is installed once, below `kept`."""

    kept: Path
    tree: Path = ROOT

    def build(self, function: str, root: Path) -> Stage:
        """The last stage of the image of `function`, in the new folder `root`. Raises `StartFailed` if a step fails."""
        stages: dict[str, Stage] = {}
        stage = Stage(root, {})
        for step in DockerfileParser(path=str(self.tree / "Dockerfile")).structure:
            instruction, value = step["instruction"], step["value"]
            if instruction == "FROM":
                name = value.partition(" AS ")[2]
                stages[name] = stage = self._begin(function, self.kept / self._key(function) if name else root)
            else:
                self._step(instruction, value, stage, stages)
        return stage

    def _key(self, function: str) -> str:
        asked = (self.tree / "functions" / function / "requirements.txt").read_text()
        return re.sub(r"\W+", "-", asked).strip("-") or "plain"

    def _begin(self, function: str, root: Path) -> Stage:
        there = root.exists()
        root.mkdir(parents=True, exist_ok=True)
        return Stage(root, self._base_image(), {"FUNCTION": function}, kept=there)

    def _step(self, instruction: str, value: str, stage: Stage, stages: Mapping[str, Stage]) -> None:
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
                self._copy(stage, Template(value).substitute(filled), stages)
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
                raise StartFailed(f"the Dockerfile has {instruction}, which dev/image.py doesn't know")

    def _copy(self, stage: Stage, value: str, stages: Mapping[str, Stage]) -> None:
        *sources, target = shlex.split(value)
        origin_root, ignored = self.tree, shutil.ignore_patterns("__pycache__", "*.egg-info")  # as .dockerignore
        if sources[0].startswith("--from="):
            origin_root, ignored = stages[sources.pop(0).removeprefix("--from=")].root, shutil.ignore_patterns()
        for source in sources:
            origin, goal = origin_root / source.lstrip("/"), stage.below(target)
            if origin.is_dir():
                shutil.copytree(origin, goal, symlinks=True, dirs_exist_ok=True, ignore=ignored)
            else:
                shutil.copy(origin, goal / origin.name if target.endswith("/") else goal)

    def _base_image(self) -> dict[str, str]:
        """Its environment: Debian's programs, and a Python that every user may run.

        One in somebody's home can't be run by another user, so it is copied, without what was installed in it.
        """
        prefix, place = Path(sys.base_prefix), self.kept / "python"
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        if prefix == Path("/usr"):
            return {"PATH": system}
        if not place.exists():
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__")
            shutil.copytree(prefix / "lib" / version, place / "lib" / version, symlinks=True, ignore=ignored)
            for shared in prefix.glob("lib/libpython*.so*"):
                shutil.copy(shared, place / "lib", follow_symlinks=False)
            (place / "bin").mkdir()
            shutil.copy(prefix / "bin" / version, place / "bin")
            for name in ("python", "python3"):
                (place / "bin" / name).symlink_to(version)
        return {"PATH": f"{place}/bin:{system}", "LD_LIBRARY_PATH": f"{place}/lib"}


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
        raise StartFailed(f"RUN {value} ended with {run.returncode}\n{(run.stdout + run.stderr)[-3000:]}")


def _for_writing(root: Path, *, allowed: bool) -> None:
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if allowed else mode & ~0o222)
