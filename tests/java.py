"""The real Java as a judge of URIs and times. Tests with it have the marker `java`."""

import base64
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

PROGRAM = Path(__file__).with_name("JavaJudge.java")


def java_says(what: str, values: Sequence[str]) -> list[str]:
    """Return the result of the real java.net.URI (`uri`), or of java.time (`time`), for each value."""
    lines = "\n".join(base64.b64encode(value.encode()).decode() for value in values)
    done = subprocess.run(["java", str(PROGRAM), what], input=lines, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def generated(pieces: Sequence[str], longest: int) -> list[str]:
    """Join the pieces to many strings, the same strings in every run."""
    chance = random.Random(1)
    joined = {"".join(chance.choices(pieces, k=chance.randint(0, longest))) for _ in range(40_000)}
    return sorted(joined)
