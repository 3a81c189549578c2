"""The short form of the fault suite: no accepted event is lost, doubled or changed, whatever dies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dev.faults.kinds import SURE
from dev.paths import ROOT

WITHIN_S = 300


@pytest.mark.fault("A1", "A2", "A3", "A5", "A7", "A10", "B1")
@pytest.mark.guarantee("G1", "G2", "G4", "G5", "G10", "R1", "R2", "R6", "R8", "R9")
def test_nothing_is_lost_while_everything_breaks(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """2,000 events, and 9 faults of 9 kinds at random moments. The output of a failure has the seed.

    It runs in a separate process: kafka-python leaves the socket of a refused connection to the garbage collector.
    """
    broker = str(request.config.getoption("--broker", default="tansu"))
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "dev", "faults", "--short", "--broker", broker, "--json", str(figures)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())
    assert found["complaints"] == []
    assert (found["lost"], found["doubled"], found["differing"], found["checkpoints_ok"]) == (0, 0, 0, True)
    assert (found["overclaimed"], found["feed_gaps"], found["sent_again"]) == (0, 0, 0)
    assert found["acknowledged"] >= 2000
    assert found["expired"] > 0, "the TTL monitor deleted events that were in the log"
    assert found["poison_kept"] == found["poison_sent"] > 0
    assert len(found["faults"]) == sum(found["faults"].values()) == 9
    assert len(found["faults"].keys() & {*SURE}) >= 2
