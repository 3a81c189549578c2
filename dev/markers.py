"""Which test shows which guarantee: `python -m dev.markers`, a part of `make check`.

A test says what it shows with `@pytest.mark.guarantee("G1", "R6")`: guarantees of docs/architecture.md, and
rows of the list of failures that this project exists to avoid. The check fails on a name that does not exist,
and on a guarantee or row whose code is there while no test shows it. A test without a marker is only listed.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Claim:
    """A guarantee or a failure row: what it says, and the file that makes it true."""

    says: str
    code: str


CLAIMS = {
    "G1": Claim("accepted is durable", "shared/twofold/publishing.py"),
    "G2": Claim("once in each collection", "shared/twofold/event_store.py"),
    "G3": Claim("the log is append-only", "shared/twofold/setup.py"),
    "G4": Claim("poison never blocks, and is never lost", "shared/twofold/dead_letters.py"),
    "G5": Claim("nothing expires before it is in the log", "functions/relay/main.py"),
    "G6": Claim("one pod life, one set of events", "functions/pod_events/main.py"),
    "G7": Claim("isolation from Kafka and from store", "shared/twofold/kafka.py"),
    "G8": Claim("replay is fenced", "functions/replay/main.py"),
    "G9": Claim("a reader sees only what it may", "shared/twofold/auth.py"),
    "G10": Claim("completeness can be stated", "shared/twofold/checkpoints.py"),
    "R1": Claim("death between the insert and the send", "shared/twofold/publishing.py"),
    "R2": Claim("success though Kafka never got it", "shared/twofold/publishing.py"),
    "R3": Claim("phantom rows, validated after the insert", "shared/twofold/publishing.py"),
    "R4": Claim("services that go round the dual write", "shared/twofold/publishing.py"),
    "R5": Claim("two copies that differ", "shared/twofold/publishing.py"),
    "R6": Claim("offset committed before the write", "functions/store/main.py"),
    "R7": Claim("a duplicate aborts the batch", "functions/store/main.py"),
    "R8": Claim("an undecodable message kills the consumer", "functions/store/main.py"),
    "R9": Claim("an outage becomes a permanent gap", "functions/relay/main.py"),
    "R10": Claim("handler errors swallowed", "functions/store/main.py"),
    "R11": Claim("a dead-letter worker that cannot start", "functions/dead_letters/main.py"),
    "R12": Claim("redrive to the wrong place, in the wrong form", "functions/dead_letters/main.py"),
    "R13": Claim("scheduled and terminated lost", "functions/pod_events/main.py"),
    "R14": Claim("image pull failure without an event", "functions/pod_events/main.py"),
    "R15": Claim("out of memory told as a script error", "functions/pod_events/main.py"),
    "R16": Claim("an evicted pod crashes it", "functions/pod_events/main.py"),
    "R17": Claim("deadline exceeded without an event", "functions/pod_events/main.py"),
    "R18": Claim("back-off that never grows", "functions/pod_events/main.py"),
    "R19": Claim("a watch that stalls the event loop", "functions/pod_events/main.py"),
    "R20": Claim("a restart emits everything again", "functions/pod_events/main.py"),
    "R21": Claim("pod events not found with their execution", "functions/pod_events/main.py"),
    "R22": Claim("one aggregate without one key", "shared/twofold/kafka.py"),
    "R23": Claim("skip and count, unchecked sort, no limit", "functions/query/main.py"),
    "R24": Claim("filters on fields that don't exist", "functions/query/main.py"),
    "R25": Claim("unbounded documents, regex and indexes", "functions/query/main.py"),
    "R26": Claim("a stored shape that cannot be read back", "shared/twofold/event.py"),
    "R27": Claim("replay of one id became everything", "functions/replay/main.py"),
    "R28": Claim("invented progress", "functions/replay/main.py"),
    "R29": Claim("pause, resume and speed without effect", "functions/replay/main.py"),
    "R30": Claim("raw pipelines from users", "functions/query/main.py"),
    "R31": Claim("a query flag skips the role check", "functions/query/main.py"),
    "R32": Claim("dead letters open to all", "functions/dead_letters/main.py"),
    "R33": Claim("the immutable log could be deleted", "shared/twofold/setup.py"),
    "R34": Claim("retention settings unused", "shared/twofold/settings.py"),
    "R35": Claim("an export that does not match its API", "functions/admin/main.py"),
}


@dataclass(frozen=True)
class MarkedTest:
    """One test function, however many parameters it runs with."""

    name: str
    shows: frozenset[str]
    of_dev: bool = False


@dataclass(frozen=True)
class Report:
    """What the markers say, and what is wrong with them."""

    tests: dict[str, int]
    """How many tests show each claim."""
    built: frozenset[str]
    """The claims whose code is there."""
    unmarked: tuple[str, ...]
    problems: tuple[str, ...]


def report(tests: Iterable[MarkedTest], built: frozenset[str]) -> Report:
    """Judge the markers against the claims whose code is there; no I/O."""
    tests = sorted(tests, key=lambda test: test.name)
    counts = {claim: sum(claim in test.shows for test in tests) for claim in CLAIMS}
    unknown = [
        f"{test.name} names {name!r}, which is no guarantee and no row"
        for test in tests
        for name in sorted(test.shows - CLAIMS.keys())
    ]
    unshown = [
        f"{name} ({claim.says}): {claim.code} is there, and no test shows it"
        for name, claim in CLAIMS.items()
        if name in built and not counts[name]
    ]
    return Report(
        tests=counts,
        built=built,
        unmarked=tuple(test.name for test in tests if not test.shows and not test.of_dev),
        problems=(*unknown, *unshown),
    )


def built_in(root: Path) -> frozenset[str]:
    """Return the claims whose code exists below `root`."""
    return frozenset(name for name, claim in CLAIMS.items() if (root / claim.code).is_file())


@dataclass
class Collector:
    """A pytest plugin that keeps what was collected."""

    shows: dict[str, set[str]] = field(default_factory=dict)
    of_dev: set[str] = field(default_factory=set)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note each test's markers, those of its class and of its module included."""
        for item in session.items:
            name = item.nodeid.partition("[")[0]
            shows = self.shows.setdefault(name, set())
            for mark in item.iter_markers("guarantee"):
                shows.update(str(claim) for claim in mark.args)
            if item.get_closest_marker("dev"):
                self.of_dev.add(name)

    def tests(self) -> list[MarkedTest]:
        """Return what was collected."""
        return [MarkedTest(name, frozenset(shows), name in self.of_dev) for name, shows in self.shows.items()]


def collect(paths: Sequence[str]) -> list[MarkedTest]:
    """Collect the tests below `paths`, running none; raise SystemExit with pytest's words if that fails."""
    collector = Collector()
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main([*config, "--collect-only", "-q", *paths], plugins=[collector])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"{said.getvalue()}\nThe tests could not be collected.")
    return collector.tests()


def show(result: Report, console: Console) -> None:
    """Print the table, the tests without a marker, and the problems."""
    rows = Table("", "what the tests show", "tests", box=None, pad_edge=False)
    later = [name for name in CLAIMS if name not in result.built and not result.tests[name]]
    for name in [name for name in CLAIMS if name not in later]:
        rows.add_row(name, CLAIMS[name].says, str(result.tests[name]))
    console.print(rows)
    lines = [f"not built yet: {' '.join(later)}"] if later else []
    if result.unmarked:
        lines.append(f"{len(result.unmarked)} tests without a marker (no fault):")
        lines.extend(f"  {name}" for name in result.unmarked)
    lines.extend(f"FAILED {problem}" for problem in result.problems)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the tests below the given paths; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.markers", description=__doc__)
    parser.add_argument("paths", nargs="*", default=[str(ROOT / "tests")], help="where the tests are")
    paths = parser.parse_args(arguments).paths
    result = report(collect(paths), built_in(ROOT))
    show(result, Console())
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
