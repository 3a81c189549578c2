"""Named mutants: small wrong changes of the product, each with the tests that must notice.

`make mutants` applies each in a copy of the tree, runs its tests there, and shows which one killed it. A mutant that
lives, or whose text is no longer found, fails the command: then a promise has no test, or this list is out of date.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Literal, NamedTuple, Self

import typer
from rich.console import Console

from dev.mutants_list import MUTANTS, Mutant
from dev.paths import ROOT

LONGEST_S = 240
AT_ONCE = 2
"""How many are tried at once, each in a copy of its own: a test mostly waits for servers to start."""
_KILLER = re.compile(r"^FAILED (\S+)", re.MULTILINE)
_TESTS_FAILED = 1
"""pytest's exit status: https://docs.pytest.org/en/stable/reference/exit-codes.html"""

Fate = Literal["killed", "LIVES", "NOT FOUND", "BROKEN"]


class Result(NamedTuple):
    """What became of a mutant, and the test that killed it or what went wrong."""

    fate: Fate
    by: str


@dataclass(frozen=True)
class Copy:
    """A copy of the tree in which things may be broken."""

    root: Path

    @classmethod
    def of_the_tree(cls, root: Path) -> Self:
        """A copy, at `root`, of what git knows of this tree, as it is now."""
        for name in _tree():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        return cls(root)

    def apply(self, mutant: Mutant) -> bool:
        """Replace the mutant's text, which must be there exactly once."""
        file = self.root / mutant.file
        text = file.read_text()
        if text.count(mutant.before) != 1:
            return False
        file.write_text(text.replace(mutant.before, mutant.after))
        return True

    def revert(self, mutant: Mutant) -> None:
        """Bring the original back."""
        shutil.copy(ROOT / mutant.file, self.root / mutant.file)

    def test(self, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run the tests on what is in the copy, the product and the tests alike."""
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
    """Apply `mutant`, run its tests, and put the original back."""
    if not copy.apply(mutant):
        return Result("NOT FOUND", f"its text is not, or not once, in {mutant.file}")
    try:
        run = copy.test(mutant.tests)
    except subprocess.TimeoutExpired:
        return Result("BROKEN", f"no end within {LONGEST_S} s")
    finally:
        copy.revert(mutant)
    return verdict(run.returncode, run.stdout)


def verdict(exit_status: int, output: str) -> Result:
    """What pytest's exit status and output say. Only a test that failed kills: a broken import does not."""
    killers = _KILLER.findall(output)
    if exit_status == _TESTS_FAILED and killers:
        return Result("killed", killers[0])
    if exit_status == 0:
        return Result("LIVES", "all its tests passed")
    return Result("BROKEN", f"pytest ended with {exit_status}: {output[-300:]}")


def _chosen(names: Sequence[str]) -> list[Mutant]:
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        raise typer.BadParameter(f"no such mutant: {', '.join(sorted(unknown))}")
    return [mutant for mutant in MUTANTS if not names or mutant.name in names]


def _tree() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return (Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def mutants(names: Annotated[list[str] | None, typer.Argument(help="Only these.")] = None) -> None:
    """Apply each named mutant in a copy, and show which test killed it."""
    console = Console()
    chosen = _chosen(names or [])
    fates: list[str] = []
    with tempfile.TemporaryDirectory(prefix="twofold-mutants-") as folder, ThreadPoolExecutor(AT_ONCE) as workers:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(AT_ONCE):
            copies.put(Copy.of_the_tree(Path(folder) / str(number)))
        for mutant, result in zip(chosen, workers.map(partial(_try_in_one_of, copies), chosen), strict=True):
            fates.append(result.fate)
            console.print(
                f"{result.fate:9} {mutant.name}  ({result.by})", highlight=False, markup=False, soft_wrap=True
            )
    killed = fates.count("killed")
    console.print(f"{killed} of {len(fates)} mutants killed", highlight=False)
    raise typer.Exit(killed != len(fates))


def _try_in_one_of(copies: "SimpleQueue[Copy]", mutant: Mutant) -> Result:
    copy = copies.get()
    try:
        return try_mutant(copy, mutant)
    finally:
        copies.put(copy)
