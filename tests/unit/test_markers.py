"""The check of the markers fails for unknown and for unshown guarantees."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from dev.paths import ROOT
from tests.markers import CLAIMS, NOT_BUILT, MarkedTest, coverage, wrong_files

pytestmark = pytest.mark.dev

NOTHING: frozenset[str] = frozenset()


def shows(*claims: str, name: str = "test_it", of_dev: bool = False) -> MarkedTest:
    return MarkedTest(name, frozenset(claims), of_dev)


def test_every_guarantee_and_failure_names_its_code() -> None:
    assert set(CLAIMS) == {f"G{n}" for n in range(1, 11)} | {f"R{n}" for n in range(1, 36)}


@pytest.mark.parametrize("name", ["G0", "G11", "R36", "g1", "Q1", ""])
def test_an_unknown_name_is_a_problem(name: str) -> None:
    (problem,) = coverage([shows("G1", name)], NOTHING).problems

    assert repr(name) in problem
    assert "test_it" in problem


def test_a_guarantee_with_code_and_no_test_is_a_problem() -> None:
    (problem,) = coverage([shows("G1"), shows("R6")], frozenset({"G1", "G2"})).problems

    assert problem.startswith("G2 ")
    assert CLAIMS["G2"].code in problem


def test_a_failure_with_code_and_no_test_is_a_problem() -> None:
    (problem,) = coverage([], frozenset({"R6"})).problems

    assert problem.startswith("R6 ")


def test_a_claim_without_code_needs_no_test() -> None:
    assert coverage([shows("G1")], frozenset({"G1"})).problems == ()


def test_a_claim_without_code_may_have_a_test() -> None:
    """`publish` fences replayed events already, without a replay function."""
    result = coverage([shows("G8")], NOTHING)

    assert result.problems == ()
    assert result.tests["G8"] == 1


def test_a_test_counts_for_every_claim_in_its_marker() -> None:
    result = coverage([shows("G1", "R6", name="test_a"), shows("G1", name="test_b")], NOTHING)

    assert (result.tests["G1"], result.tests["R6"], result.tests["G2"]) == (2, 1, 0)


def test_tests_without_a_marker_are_listed_and_no_problem() -> None:
    """Tests of the local stack itself name no guarantee."""
    tests = [shows(name="test_b"), shows(name="test_a"), shows(name="test_dev", of_dev=True)]

    result = coverage(tests, NOTHING)

    assert result.without_marker == ("test_a", "test_b")
    assert result.problems == ()


def make_code(root: Path, names: Iterable[str]) -> None:
    for name in names:
        file = root / CLAIMS[name].code
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_every_built_claim_has_its_code() -> None:
    assert list(wrong_files(ROOT)) == []


def test_a_claim_without_its_file_is_a_problem(tmp_path: Path) -> None:
    """Otherwise a moved file would silently end the check of its claim. An empty folder is no code."""
    make_code(tmp_path, CLAIMS.keys() - NOT_BUILT)
    assert list(wrong_files(tmp_path)) == []

    (tmp_path / CLAIMS["R34"].code).unlink()
    (tmp_path / CLAIMS["R34"].code).mkdir()
    (problem,) = wrong_files(tmp_path)

    assert problem.startswith("R34 ")
    assert f"{CLAIMS['R34'].code} does not exist" in problem


def test_code_of_a_claim_that_is_not_built_is_a_problem(tmp_path: Path) -> None:
    """`NOT_BUILT` must not excuse a claim with code from its test."""
    make_code(tmp_path, CLAIMS)

    problems = list(wrong_files(tmp_path))

    assert [problem.partition(" ")[0] for problem in problems] == ["G8", "R27", "R28", "R29"]
    assert all("NOT_BUILT" in problem for problem in problems)


def markers(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.markers", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_markers_of_module_class_and_function_are_read_from_real_tests(tmp_path: Path) -> None:
    """A test function counts once for all its parameters."""
    tests = tmp_path / "test_made_up.py"
    tests.write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.guarantee('G1')\n"
        "@pytest.mark.guarantee('R2')\n"
        "class TestIt:\n"
        "    @pytest.mark.guarantee('G11')\n"
        "    @pytest.mark.parametrize('n', range(5))\n"
        "    def test_five(self, n): ...\n"
    )

    done = markers(tests)

    assert done.returncode == 1
    assert "test_five names the unknown guarantee 'G11'" in done.stdout
    assert re.search(r"^G1 .* 1\s*$", done.stdout, re.MULTILINE)
    assert re.search(r"^R2 .* 1\s*$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_tests_that_cannot_be_collected_fail_the_check(tmp_path: Path) -> None:
    """A broken import must not hide tests."""
    tests = tmp_path / "test_made_up.py"
    tests.write_text("import no_such_module\n")

    done = markers(tests)

    assert done.returncode == 1
    assert "no_such_module" in done.stderr
