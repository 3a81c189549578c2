"""The list of mutants in named.txt.

A line `== FILE` begins the mutants of a file. A mutant is its name behind `#`, its tests, and the lines that leave
(`-`) and enter (`+`) the file. A name begins with guarantees (G) and failures (R) of tests/markers.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dev.paths import ROOT


@dataclass(frozen=True)
class Mutant:
    """A replacement of `before` in `file`, which has this text once. `tests` are the node ids of pytest."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def parse(listed: str) -> Iterator[Mutant]:
    """Yield the mutants of a list. Raises `ValueError` for a mutant without a name, tests or lines that leave."""
    file = ""
    for entry in re.split(r"^(?=== |# )", listed, flags=re.MULTILINE)[1:]:
        head, _, body = entry.partition("\n")
        if head.startswith("== "):
            file = head[3:]
            continue
        tests, *changes = body.rstrip("\n").split("\n")
        before, after = ([line[1:] for line in changes if line[0] == sign] for sign in "-+")
        if len(before) + len(after) != len(changes) or not before:
            raise ValueError(f"dev/mutants/named.txt: {head}: lines must begin with - or +")
        yield Mutant(head[2:], file, "\n".join(before), "\n".join(after), tuple(tests.split()))


MUTANTS = tuple(parse((ROOT / "dev/mutants/named.txt").read_text()))
