"""The fault suite's shorter form: nothing that was accepted is lost, doubled or changed, whatever dies."""

import secrets
from pathlib import Path

import pytest

from dev.faults.plan import SHORT
from dev.faults.run import Plan, run


@pytest.mark.guarantee("G1", "G2", "G4", "G5", "G10", "R1", "R2", "R6", "R8", "R9")
def test_nothing_is_lost_while_everything_breaks(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """2,000 events, and 11 faults of 11 kinds at random moments. The seed is in what a failure prints."""
    broker = str(request.config.getoption("--broker", default="tansu"))
    wanted = Plan(secrets.randbits(32), events=2000, faults=11, broker=broker, pace=SHORT, logs=tmp_path)
    report = run(wanted, on_step=print)
    assert report.complaints() == [], report.as_json()
    assert report.acknowledged >= 2000
    assert report.faults.total() == len(report.faults) == 11
