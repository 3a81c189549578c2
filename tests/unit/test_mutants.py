"""The runner of mutants: what counts as killed, and what never may."""

from pathlib import Path

import pytest

from dev.mutants import Copy, Result, try_mutant, verdict
from dev.mutants_list import MUTANTS, Mutant
from dev.paths import ROOT

pytestmark = pytest.mark.dev

FILE = "Makefile"
A_TEST = "tests/test_it.py"


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A tree of one product file and one test, which looks for the file's first line."""
    first = (ROOT / FILE).read_text().splitlines()[0]
    (tmp_path / FILE).write_text((ROOT / FILE).read_text())
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / A_TEST).write_text(
        f"from pathlib import Path\n\ndef test_it():\n    assert {first!r} in Path({FILE!r}).read_text()\n"
    )
    return Copy(tmp_path)


def mutant(before: str, after: str = "", tests: tuple[str, ...] = (A_TEST,)) -> Mutant:
    return Mutant("a mutant", FILE, before, after, tests)


FIRST_LINE = (ROOT / FILE).read_text().splitlines()[0]


@pytest.mark.slow
def test_a_mutant_that_a_test_notices_is_killed_by_that_test(copy: Copy) -> None:
    assert try_mutant(copy, mutant(FIRST_LINE)) == Result("killed", f"{A_TEST}::test_it")


@pytest.mark.slow
def test_a_mutant_that_no_test_notices_lives(copy: Copy) -> None:
    assert try_mutant(copy, mutant("MAKEFLAGS += --no-builtin-rules")).fate == "LIVES"


@pytest.mark.parametrize("before", ["no such text", "@$(RUN)"], ids=["absent", "more-than-once"])
def test_a_text_that_is_not_there_once_is_not_found(copy: Copy, before: str) -> None:
    assert try_mutant(copy, mutant(before)).fate == "NOT FOUND"


@pytest.mark.slow
def test_a_test_that_does_not_exist_kills_nothing(copy: Copy) -> None:
    assert try_mutant(copy, mutant(FIRST_LINE, tests=("tests/test_gone.py",))).fate == "BROKEN"


def test_the_original_is_back_afterwards(copy: Copy) -> None:
    try_mutant(copy, mutant(FIRST_LINE))
    assert (copy.root / FILE).read_text() == (ROOT / FILE).read_text()


@pytest.mark.slow
def test_the_copys_own_product_is_tested(copy: Copy) -> None:
    """Not the one that is installed."""
    (copy.root / "shared" / "twofold").mkdir(parents=True)
    (copy.root / "shared" / "twofold" / "__init__.py").write_text("HERE = True\n")
    (copy.root / A_TEST).write_text("def test_it():\n    import twofold\n    assert twofold.HERE\n")
    assert copy.test((A_TEST,)).returncode == 0


@pytest.mark.parametrize(
    ("status", "output", "fate"),
    [
        (1, "FAILED tests/a.py::test_b - assert", "killed"),
        (1, "ERROR tests/a.py::test_b - StartFailed", "BROKEN"),
        (1, "something else", "BROKEN"),
        (0, "1 passed", "LIVES"),
        (2, "ERROR tests/a.py - ImportError", "BROKEN"),
        (4, "ERROR: not found: tests/a.py::test_b", "BROKEN"),
        (5, "no tests ran", "BROKEN"),
        (-9, "", "BROKEN"),
    ],
)
def test_only_a_test_that_ran_kills(status: int, output: str, fate: str) -> None:
    """A module that can't be imported, or a test that is gone, shows nothing."""
    assert verdict(status, output).fate == fate


def test_each_mutant_has_a_name_of_its_own_and_a_place() -> None:
    """So that the list can't rot unseen between two runs of `make mutants`."""
    assert len({each.name for each in MUTANTS}) == len(MUTANTS)
    for each in MUTANTS:
        assert (ROOT / each.file).read_text().count(each.before) == 1, each.name
        for test in each.tests:
            assert (ROOT / test.partition("::")[0]).is_file(), test
