"""Who may publish, over HTTP: with which token, and in whose name."""

import json
import subprocess
import sys
from typing import Any

import pytest

from dev.paths import ROOT
from dev.process.child import free_port, plain_environment
from dev.servers.issuer import signing_key, token
from dev.stack import Stack
from tests.conftest import Spawner
from tests.helpers import View, an_event, bearer, structured

pytestmark = pytest.mark.guarantee("G9")

BAD = ["expired", "issuer", "audience"]
ANNS = {"service_name": "/shop", "user_id": "ann"}
BOBS = {"service_name": "/shop", "user_id": "bob"}


def test_without_a_token_nothing_is_taken(flow: View) -> None:
    event = an_event()
    answer = flow.publish(event, authorization="")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:twofold:problem:unauthorized"
    assert flow.document("events", event) is None


@pytest.mark.parametrize("claims", [{"exp": 1}, {"iss": "x"}, {"aud": "x"}], ids=BAD)
def test_a_bad_token_is_refused(flow: View, claims: dict[str, Any]) -> None:
    event = an_event()
    assert flow.publish(event, **bearer(**claims)).status_code == 401
    assert flow.document("events", event) is None


def test_a_token_of_an_unknown_key_is_refused(flow: View, spawn: Spawner) -> None:
    """The issuer was asked for it, and for no other a moment before: else it would be a 503."""
    event = an_event()
    answer = flow.publish(event, spawn("publish").url, **bearer(key=("?", signing_key()[1])))
    assert answer.status_code == 401
    assert flow.document("events", event) is None


def test_a_token_without_the_right_is_refused(flow: View) -> None:
    answer = flow.publish(an_event(), **bearer("ann", "events:read:all", "audit:read", "admin"))
    assert answer.status_code == 403
    assert "events:publish" in answer.json()["detail"]


def test_a_user_publishes_in_their_own_name_or_in_none(flow: View) -> None:
    for event in (an_event(), an_event(metadata=ANNS)):
        assert flow.publish(event, **bearer("ann", "events:publish")).status_code == 202


def test_a_user_can_not_publish_in_another_users_name(flow: View) -> None:
    event = an_event(metadata=BOBS)
    answer = flow.publish(event, **bearer("ann", "events:publish"))
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["where"] == "userid"
    assert flow.document("events", event) is None


def test_in_a_batch_each_event_has_its_own_answer(flow: View) -> None:
    anns, bobs, pods = an_event(metadata=ANNS), an_event(metadata=BOBS), an_event(event_type="pod.created")
    headers = {"content-type": "application/cloudevents-batch+json"} | bearer("ann", "events:publish")
    answer = flow.http.post(
        flow.stack.publish_url, headers=headers, json=[structured(event) for event in (anns, bobs, pods)]
    )
    assert answer.status_code == 207
    assert [result["status"] for result in answer.json()["results"]] == [202, 403, 403]
    assert [flow.document("events", event) is not None for event in (anns, bobs, pods)] == [True, False, False]


def test_without_the_issuers_keys_it_is_trouble(flow: View, spawn: Spawner) -> None:
    """503, so that whoever sends, tries again: a 401 would be final."""
    lost = spawn("publish", AUTH_JWKS_URL=f"http://127.0.0.1:{free_port()}/")
    answer = flow.publish(an_event(), lost.url)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_off_lets_everybody_in_and_says_so(flow: View, spawn: Spawner) -> None:
    """As each line of the log is: one JSON object, even where only errors are written."""
    opened = spawn("publish", AUTH="off", LOG_LEVEL="ERROR")
    assert flow.publish(an_event(metadata=BOBS), opened.url, authorization="").status_code == 202
    (line,) = [line for line in opened.log.read_text().splitlines() if "AUTH=off" in line]
    said = json.loads(line)
    assert (said["level"], said["logger"], said["function"]) == ("error", "twofold.auth", "publish")


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("changes", [{"event_type": "pod.created"}, {"metadata": {"service_name": "/pod_events"}}])
def test_the_clusters_name_is_open_to_nobody(flow: View, spawn: Spawner, changes: dict[str, Any]) -> None:
    """Its right is shown by a token alone, so that nobody takes a pod's fact its id, or tells one that never was."""
    event = an_event(**changes)
    for url, headers in ((spawn("publish", AUTH="off").url, {}), ("", bearer("ann", "events:publish:any"))):
        answer = flow.publish(event, url, **headers)
        assert answer.status_code == 403
        assert "events:publish:reserved" in answer.json()["detail"]
    assert flow.document("events", event) is None


@pytest.mark.parametrize("function", ["publish", "query", "audit", "admin"])
def test_a_function_that_people_reach_does_not_start_without_an_issuer(stack: Stack, function: str) -> None:
    """Forgetting to configure tokens must not open the door."""
    own = {name: value for name, value in stack.function_environment(function).items() if not name.startswith("AUTH")}
    run = subprocess.run(
        [sys.executable, "-c", f"import functions.{function}.main"],
        cwd=ROOT,
        env=plain_environment() | own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode != 0
    assert "AUTH_ISSUER, AUTH_AUDIENCE, AUTH_JWKS_URL must be set" in run.stderr


def test_no_token_is_written_into_a_log(flow: View) -> None:
    mark = token("carol", ("events:publish",))
    flow.publish(an_event(), authorization=f"Bearer {mark}")
    flow.publish(an_event(), authorization=f"Bearer {mark[:-5]}")
    assert mark[:-20] not in "".join(log.read_text(errors="replace") for log in flow.stack.logs.glob("*.log"))
