"""Compare the guarantees with the tests that show them: `python -m tests.markers`, a part of `make check`.

A test names its guarantees with `@pytest.mark.guarantee("G1", "R6")`. G1-G10 are in docs/architecture.md; R1-R35 are
the failures that this project must avoid. The check fails for an unknown name, for a guarantee without a test, and for
a guarantee whose file of code does not exist. Guarantees in `NOT_BUILT` need neither. Tests without a marker are only
listed.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console
from rich.table import Table

from dev.paths import ROOT


class Claim(NamedTuple):
    """A guarantee or a failure, and the file with its code."""

    text: str
    code: str


CLAIMS = {
    "G1": Claim("an accepted event is durable", "shared/twofold/write/publisher.py"),
    "G2": Claim("each collection holds an event once", "shared/twofold/mongo/insert.py"),
    "G3": Claim("the log is append-only", "shared/twofold/setup/roles.py"),
    "G4": Claim("poison never blocks, and is never lost", "shared/twofold/storage/dead_letters.py"),
    "G5": Claim("no event expires before it is in the log", "shared/twofold/write/relay.py"),
    "G6": Claim("a pod's life gives one set of events", "functions/pod_events/lifecycle.py"),
    "G7": Claim("isolation from Kafka and from store", "shared/twofold/kafka/sender.py"),
    "G8": Claim("replay is fenced", "functions/replay/main.py"),
    "G9": Claim("a reader sees only permitted events", "shared/twofold/web/permissions.py"),
    "G10": Claim("the log's completeness is recorded", "shared/twofold/storage/checkpoints.py"),
    "R1": Claim("death between the insert and the send", "shared/twofold/write/publisher.py"),
    "R2": Claim("success without a record in Kafka", "shared/twofold/storage/outbox.py"),
    "R3": Claim("phantom rows, validated after the insert", "shared/twofold/write/publisher.py"),
    "R4": Claim("services that bypass the dual write", "shared/twofold/write/publisher.py"),
    "R5": Claim("two copies that differ", "shared/twofold/event/digest.py"),
    "R6": Claim("offset committed before the write", "shared/twofold/write/store.py"),
    "R7": Claim("a duplicate aborts the batch", "shared/twofold/mongo/insert.py"),
    "R8": Claim("an undecodable message kills the consumer", "shared/twofold/write/store.py"),
    "R9": Claim("an outage becomes a permanent gap", "shared/twofold/write/relay.py"),
    "R10": Claim("handler errors swallowed", "shared/twofold/write/store.py"),
    "R11": Claim("a dead-letter worker that cannot start", "functions/dead_letters/main.py"),
    "R12": Claim("redrive to the wrong place, in the wrong form", "shared/twofold/write/redrive.py"),
    "R13": Claim("scheduled and terminated lost", "functions/pod_events/lifecycle.py"),
    "R14": Claim("image pull failure without an event", "functions/pod_events/causes.py"),
    "R15": Claim("out of memory reported as a script error", "functions/pod_events/causes.py"),
    "R16": Claim("an evicted pod crashes the function", "functions/pod_events/lifecycle.py"),
    "R17": Claim("deadline exceeded without an event", "functions/pod_events/causes.py"),
    "R18": Claim("back-off that never grows", "functions/pod_events/pod_state.py"),
    "R19": Claim("a watch that stalls the event loop", "functions/pod_events/listing.py"),
    "R20": Claim("a restart emits everything again", "functions/pod_events/identity.py"),
    "R21": Claim("pod events not found with their execution", "functions/pod_events/identity.py"),
    "R22": Claim("an aggregate with several keys", "shared/twofold/kafka/sender.py"),
    "R23": Claim("skip and count, unchecked sort, no limit", "shared/twofold/query/filters.py"),
    "R24": Claim("filters on fields that don't exist", "shared/twofold/query/parameters.py"),
    "R25": Claim("unbounded documents, regex and indexes", "shared/twofold/query/limits.py"),
    "R26": Claim("a stored shape that cannot be read back", "shared/twofold/event/model.py"),
    "R27": Claim("replay of one id became everything", "functions/replay/main.py"),
    "R28": Claim("invented progress", "functions/replay/main.py"),
    "R29": Claim("pause, resume and speed without effect", "functions/replay/main.py"),
    "R30": Claim("raw pipelines from users", "shared/twofold/query/filters.py"),
    "R31": Claim("a query flag skips the role check", "shared/twofold/web/api.py"),
    "R32": Claim("dead letters open to all", "functions/dead_letters/main.py"),
    "R33": Claim("the immutable log could be deleted", "shared/twofold/setup/roles.py"),
    "R34": Claim("retention settings unused", "shared/twofold/settings/__init__.py"),
    "R35": Claim("an export that does not match its API", "shared/twofold/read/export.py"),
}

NOT_BUILT = frozenset({"G8", "R27", "R28", "R29"})
"""The claims whose code does not exist yet. G8 has tests already: `publish` and `store` fence replayed events."""


class MarkedTest(NamedTuple):
    """A test function with all its parameters."""

    name: str
    shows: frozenset[str]
    of_dev: bool = False


class Coverage(NamedTuple):
    """The result of the check."""

    tests: dict[str, int]
    """The number of tests by claim."""
    without_marker: tuple[str, ...]
    problems: tuple[str, ...]


def coverage(tests: Iterable[MarkedTest], built: frozenset[str]) -> Coverage:
    """Compare the markers of `tests` with the `built` claims. Pure."""
    tests = sorted(tests)
    counts = {claim: sum(claim in test.shows for test in tests) for claim in CLAIMS}
    unknown = [
        f"{test.name} names the unknown guarantee {name!r}: see CLAIMS in tests/markers.py"
        for test in tests
        for name in sorted(test.shows - CLAIMS.keys())
    ]
    unshown = [
        f"{name} ({claim.text}): no test shows the code in {claim.code}"
        for name, claim in CLAIMS.items()
        if name in built and not counts[name]
    ]
    without_marker = tuple(test.name for test in tests if not test.shows and not test.of_dev)
    return Coverage(counts, without_marker, (*unknown, *unshown))


def wrong_files(root: Path) -> Iterator[str]:
    """Yield a problem for every built claim without its file below `root`, and for every other claim with its file."""
    for name, claim in CLAIMS.items():
        exists = (root / claim.code).is_file()
        if name not in NOT_BUILT and not exists:
            yield f"{name} ({claim.text}): {claim.code} does not exist: name the file in CLAIMS of tests/markers.py"
        if name in NOT_BUILT and exists:
            yield f"{name} ({claim.text}): {claim.code} exists: remove {name} from NOT_BUILT in tests/markers.py"


class Collector:
    """A pytest plugin that keeps the collected tests by name."""

    def __init__(self) -> None:
        self.tests: dict[str, MarkedTest] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the markers of each test, its class and its module."""
        for item in session.items:
            name = item.nodeid.partition("[")[0]
            shows = {str(claim) for mark in item.iter_markers("guarantee") for claim in mark.args}
            known = self.tests.get(name, MarkedTest(name, frozenset()))
            self.tests[name] = MarkedTest(name, known.shows | shows, item.get_closest_marker("dev") is not None)


def collect(paths: Sequence[str]) -> Iterable[MarkedTest]:
    """Return the tests below `paths` without running them. Raises `SystemExit` with pytest's output on an error."""
    collector = Collector()
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main([*config, "--collect-only", "-q", *paths], plugins=[collector])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"{output.getvalue()}\npytest could not collect the tests below {' '.join(paths)}")
    return collector.tests.values()


def show(result: Coverage, console: Console) -> None:
    """Print the table, the tests without a marker, and the problems."""
    rows = Table("", "guarantee or failure", "tests", box=None, pad_edge=False)
    for name, claim in CLAIMS.items():
        if name not in NOT_BUILT or result.tests[name]:
            rows.add_row(name, claim.text, str(result.tests[name]))
    console.print(rows)
    lines = [f"not built yet: {' '.join(name for name in CLAIMS if name in NOT_BUILT)}"]
    if result.without_marker:
        lines += [
            f"{len(result.without_marker)} tests without a marker (allowed):",
            *(f"  {name}" for name in result.without_marker),
        ]
    lines += [f"FAILED {problem}" for problem in result.problems]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the tests below the given paths, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.markers", description=__doc__)
    parser.add_argument("paths", nargs="*", default=[str(ROOT / "tests")], help="folders or files of tests")
    paths = parser.parse_args(arguments).paths
    result = coverage(collect(paths), frozenset(CLAIMS) - NOT_BUILT)
    result = result._replace(problems=(*result.problems, *wrong_files(ROOT)))
    show(result, Console())
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
