"""The command `python -m dev mutants`: apply each mutant in a copy of the tree, and run its tests there.

The command fails when a mutant lives, or when its file does not have its text once. Then a guarantee has no test, or
the list is out of date.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import typer
from rich.console import Console

from dev.mutants.named import MUTANTS, Mutant
from dev.paths import ROOT

PARTS = 3
"""The number of parts. A part takes less than 4 minutes on 2 cores."""
LONGEST_S = 240
"""The longest time for the tests of a mutant."""
AT_ONCE = 2
"""The number of mutants at the same time. A test mostly waits for servers."""
_KILLER = re.compile(r"^FAILED (\S+)", re.MULTILINE)
_TESTS_FAILED = 1
"""An exit status of pytest: https://docs.pytest.org/en/stable/reference/exit-codes.html"""

Fate = Literal["killed", "LIVES", "NOT FOUND", "BROKEN"]


class Result(NamedTuple):
    """The fate of a mutant, and the test that killed the mutant or the problem."""

    fate: Fate
    by: str


@dataclass(frozen=True)
class Copy:
    """A copy of the tree, for mutants."""

    root: Path

    @classmethod
    def of_the_tree(cls, root: Path) -> Self:
        """Copy the tracked files of the working tree to `root`."""
        for name in _tracked():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        return cls(root)

    def apply(self, mutant: Mutant) -> bool:
        """Replace the text of a mutant. Return False unless its file has the text once."""
        file = self.root / mutant.file
        text = file.read_text() if file.is_file() else ""
        if text.count(mutant.before) != 1:
            return False
        file.write_text(text.replace(mutant.before, mutant.after))
        return True

    def test(self, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run tests of the copy on the product of the copy."""
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--no-header", "-p", "no:cacheprovider", *tests],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": f"{self.root}{os.pathsep}{self.root / 'shared'}"},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )


def try_mutant(copy: Copy, mutant: Mutant) -> Result:
    """Apply a mutant to a copy, and run its tests there."""
    if not copy.apply(mutant):
        return Result("NOT FOUND", f"{mutant.file} does not have its text exactly once")
    try:
        run = copy.test(mutant.tests)
    except subprocess.TimeoutExpired:
        return Result("BROKEN", f"its tests took longer than {LONGEST_S} s")
    return verdict(run.returncode, run.stdout)


def verdict(exit_status: int, output: str) -> Result:
    """Read the exit status and the output of pytest. Only a failed test kills: a broken import does not kill."""
    killers = _KILLER.findall(output)
    if exit_status == _TESTS_FAILED and killers:
        return Result("killed", killers[0])
    if exit_status == 0:
        return Result("LIVES", "all its tests passed")
    return Result("BROKEN", f"pytest ended with {exit_status}: {output[-300:]}")


def part_of(number: int) -> tuple[Mutant, ...]:
    """Return a part of the list, from 1 to `PARTS`. Neighbours in the list are in different parts."""
    return MUTANTS[number - 1 :: PARTS]


def part_in_turn(commit: str) -> int:
    """Return the part of a commit by its hash, so all parts run in the long run. Without a commit, return 1."""
    return int(commit[:8], 16) % PARTS + 1 if commit else 1


def mutants(
    names: Annotated[list[str] | None, typer.Argument(help="only the mutants with these names")] = None,
    *,
    part: Annotated[int | None, typer.Option(min=1, max=PARTS, help="only this part of the list")] = None,
    in_turn: Annotated[bool, typer.Option("--in-turn", help="only the part of the current commit")] = False,
) -> None:
    """Apply the mutants in copies of the tree, and show the killing tests."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    part = part_in_turn(_git("rev-parse", "HEAD")) if in_turn else part
    chosen = _named(names) if names else part_of(part) if part else MUTANTS
    if part:
        console.print(f"Mutants, part {part} of {PARTS}: {len(chosen)} of {len(MUTANTS)} (dev mutants --part {part})")
    began, killed = time.monotonic(), 0
    with ThreadPoolExecutor(AT_ONCE) as workers:
        for mutant, result in zip(chosen, workers.map(_try_in_new_copy, chosen), strict=True):
            killed += result.fate == "killed"
            console.print(f"{result.fate:9} {mutant.name}  ({result.by})")
    console.print(f"{killed} of {len(chosen)} mutants killed in {time.monotonic() - began:.0f} s")
    raise typer.Exit(killed != len(chosen))


def _named(names: Sequence[str]) -> Sequence[Mutant]:
    if unknown := set(names) - {mutant.name for mutant in MUTANTS}:
        raise typer.BadParameter(f"no mutant has the name {', '.join(sorted(unknown))}: see dev/mutants/named.txt")
    return [mutant for mutant in MUTANTS if mutant.name in names]


def _try_in_new_copy(mutant: Mutant) -> Result:
    with tempfile.TemporaryDirectory(prefix="twofold-mutant-") as folder:
        return try_mutant(Copy.of_the_tree(Path(folder)), mutant)


def _tracked() -> Iterator[Path]:
    """Yield the tracked files. Without git, yield every file outside hidden folders."""
    names = _git("ls-files", "-z").split("\0")
    found = (
        map(Path, names)
        if names != [""]
        else (file.relative_to(ROOT) for top in ROOT.glob("[!.]*") for file in (top, *top.rglob("*")))
    )
    return (file for file in found if (ROOT / file).is_file())


def _git(*arguments: str) -> str:
    """Return the output of git, or an empty string outside a repository."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
