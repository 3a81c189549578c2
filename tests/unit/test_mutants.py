"""The list of mutants, and the runner: the killed, the living and the broken mutants."""

from pathlib import Path

import pytest

from dev.mutants.named import MUTANTS, Mutant, parse
from dev.mutants.run import PARTS, Copy, Result, part_in_turn, part_of, try_mutant, verdict
from dev.paths import ROOT
from tests.markers import CLAIMS

pytestmark = pytest.mark.dev

FILE = "Makefile"
A_TEST = "tests/test_it.py"


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Return a tree of one file and one test, which looks for the first line of the file."""
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
def test_a_mutant_is_killed_by_the_test_that_fails(copy: Copy) -> None:
    assert try_mutant(copy, mutant(FIRST_LINE)) == Result("killed", f"{A_TEST}::test_it")


@pytest.mark.slow
def test_a_mutant_lives_when_no_test_fails(copy: Copy) -> None:
    assert try_mutant(copy, mutant("MAKEFLAGS += --no-builtin-rules")).fate == "LIVES"


@pytest.mark.parametrize("before", ["no such text", "@$(RUN)"], ids=["absent", "more-than-once"])
def test_a_text_must_be_in_the_file_once(copy: Copy, before: str) -> None:
    assert try_mutant(copy, mutant(before)).fate == "NOT FOUND"


@pytest.mark.slow
def test_a_missing_test_kills_nothing(copy: Copy) -> None:
    assert try_mutant(copy, mutant(FIRST_LINE, tests=("tests/test_gone.py",))).fate == "BROKEN"


@pytest.mark.slow
def test_the_tests_run_on_the_product_of_the_copy(copy: Copy) -> None:
    """The installed product is another tree."""
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
def test_only_a_failed_test_kills(status: int, output: str, fate: str) -> None:
    """A failed import or a missing test shows nothing."""
    assert verdict(status, output).fate == fate


@pytest.mark.parametrize("each", MUTANTS, ids=lambda each: each.name)
def test_the_text_of_a_mutant_is_in_its_file_once(each: Mutant) -> None:
    """A rename in the product shows here, long before `make mutants`."""
    assert (ROOT / each.file).read_text().count(each.before) == 1
    for test in each.tests:
        path, *names = test.split("::")
        assert all(name in (ROOT / path).read_text() for name in names)


def test_mutants_have_names_of_their_own_and_break_known_guarantees() -> None:
    assert len({each.name for each in MUTANTS}) == len(MUTANTS)
    broken = {claim for each in MUTANTS for claim in each.name.partition(":")[0].split()}
    assert broken <= CLAIMS.keys()
    assert broken >= {"G1", "G2", "G3", "G4", "G5", "G6", "G7", "G9", "G10"}


def test_the_parts_are_the_whole_list() -> None:
    parts = [part_of(number) for number in range(1, PARTS + 1)]
    assert sorted(each.name for part in parts for each in part) == sorted(each.name for each in MUTANTS)


def test_the_hash_of_a_commit_selects_its_part() -> None:
    assert [part_in_turn(f"0000000{digit}ab") for digit in "0123"] == [1, 2, 3, 1]
    assert part_in_turn("fffffffe" + "0" * 32) == 0xFFFFFFFE % PARTS + 1


def test_a_tree_without_git_has_the_first_part_and_all_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tree" / ".venv").mkdir(parents=True)
    (tmp_path / "tree" / "dev").mkdir()
    for name in ("Makefile", "dev/paths.py", ".venv/made"):
        (tmp_path / "tree" / name).touch()
    monkeypatch.setattr("dev.mutants.run.ROOT", tmp_path / "tree")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    copy = Copy.of_the_tree(tmp_path / "copy")

    assert {file.relative_to(copy.root).as_posix() for file in copy.root.rglob("*") if file.is_file()} == {
        "Makefile",
        "dev/paths.py",
    }
    assert part_in_turn("") == 1


def test_an_entry_without_signs_is_refused() -> None:
    with pytest.raises(ValueError, match="a name: lines must begin with - or \\+"):
        list(parse("== Makefile\n# a name\ntests/test_it.py\nno sign\n"))
