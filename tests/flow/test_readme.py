"""The snippet of README: it runs as it is, and shows its result."""

import re
import subprocess
import sys

import pytest

from dev.paths import ROOT
from dev.process.child import plain_environment
from tests.helpers import View

pytestmark = [pytest.mark.guarantee("G1", "G2"), pytest.mark.fault("C5")]


def test_the_python_snippet_prints_its_result(flow: View) -> None:
    """It gives an id, so a second run is a duplicate."""
    (snippet,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    env = plain_environment() | flow.stack.function_environment("operator")
    results = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", snippet], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert (run.returncode, run.stderr) == (0, "")
        results.append(run.stdout.split())
    assert [status for status, _ in results] == ["accepted", "duplicate"]
    assert results[0][1] == results[1][1]
