"""`make demo` in a fresh clone, with `KEEP=1`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from dev.paths import ROOT
from dev.stack.functions import FUNCTIONS
from tests.helpers import an_event
from twofold.cloudevents.encode import encode_http
from twofold.mongo.client import Document

KINDS_OF_DATA = {
    "JSON object": {"payload": {"total": 3}},
    "JSON null": {"payload": None},
    "text": {"payload": "Grüße, 世界"},
    "bytes": {"payload_base64": "iVBORw0KGgoA"},
    "no data": {},
}
NOTHING_OFF = {"lost": 0, "doubled": 0, "differing": 0, "outbox_entries": 0}
OF_THE_STACK = {"mongodb_uri", "database", "kafka", "token", "stop", "env_file", *(f"{name}_url" for name in FUNCTIONS)}


def _check_the_shell(figures: dict[str, Any]) -> None:
    """Source the file in a shell, read as a user with a role of its own, and run the command line."""
    script = """. "$1"; python=$2
    token=$("$python" -m dev token --sub ann --roles audit:read)
    curl -s -o /dev/null -w '%{http_code}\\n' "$AUDIT/feed" -H "Authorization: Bearer $token"
    curl -s -o /dev/null -w '%{http_code}\\n' "$ADMIN/events" -H "Authorization: Bearer $token"
    curl -s -o /dev/null -w '%{http_code}\\n' "$ADMIN/events" -H "Authorization: Bearer $TOKEN"
    "$(dirname "$python")/twofold" status --json >/dev/null; echo $?
    "$python" -m dev token --roles audit:raed; echo $?
    """
    command = ["sh", "-c", script, "sh", figures["env_file"], sys.executable]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.split() == ["200", "403", "200", "0", "2"], ran.stderr
    assert "audit:raed" in ran.stderr


@pytest.mark.slow
@pytest.mark.fault("C7")
@pytest.mark.guarantee("G1", "G2")
def test_it_publishes_compares_and_leaves_a_stack_that_its_own_command_stops(broker_name: str, tmp_path: Path) -> None:
    """The test reads the servers again, without the demo."""
    figures_at = tmp_path / "figures.json"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MONGODB_URI", "KAFKA_BOOTSTRAP_SERVERS")
    }
    command = [sys.executable, "-m", "dev", "demo", "--keep", "--broker", broker_name, "--json", str(figures_at)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures = json.loads(figures_at.read_text())
    try:
        assert figures.items() >= NOTHING_OFF.items()
        assert figures["sent"] == figures["accepted"] + figures["duplicates"] + figures["rejected"]
        assert 1000 <= figures["accepted"] == figures["events"] == figures["event_store"]
        assert (figures["duplicates"], figures["broker"]) == (50, broker_name)
        assert 0 < figures["lag_ms_p50"] <= figures["lag_ms_p99"]
        assert figures["rejected"] > 0
        assert figures["start_s"] > 0
        assert figures["kinds_of_data"].items() >= KINDS_OF_DATA.items()
        assert figures.keys() >= OF_THE_STACK
        with MongoClient[Document](figures["mongodb_uri"]) as client:
            database = client[figures["database"]]
            for name in ("events", "event_store"):
                others = figures["pod_events"] + len(figures["kinds_of_data"])
                assert database[name].count_documents({}) == figures[name] + others
        headers, body = encode_http(an_event())
        owner = {"authorization": f"Bearer {figures['token']}"} if figures["token"] else {}
        assert httpx.post(figures["publish_url"], headers=headers | owner, content=body).status_code == 202
        _check_the_shell(figures)
    finally:
        stopped = subprocess.run(figures["stop"], shell=True, timeout=60, check=False)
    assert stopped.returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(figures["publish_url"])
