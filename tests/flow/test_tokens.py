"""Tokens over HTTP: the permission to publish, and the user of an event."""

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


def test_an_event_without_a_token_is_refused(flow: View) -> None:
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
    """A new process fetches the keys for this token. After another fetch just before, the answer would be 503."""
    event = an_event()
    answer = flow.publish(event, spawn("publish").url, **bearer(key=("?", signing_key()[1])))
    assert answer.status_code == 401
    assert flow.document("events", event) is None


def test_a_token_without_the_permission_is_refused(flow: View) -> None:
    answer = flow.publish(an_event(), **bearer("ann", "events:read:all", "audit:read", "admin"))
    assert answer.status_code == 403
    assert "events:publish" in answer.json()["detail"]


def test_a_user_publishes_with_their_own_name_or_without_a_user(flow: View) -> None:
    for event in (an_event(), an_event(metadata=ANNS)):
        assert flow.publish(event, **bearer("ann", "events:publish")).status_code == 202


def test_a_user_can_not_publish_in_another_users_name(flow: View) -> None:
    event = an_event(metadata=BOBS)
    answer = flow.publish(event, **bearer("ann", "events:publish"))
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["where"] == "userid"
    assert flow.document("events", event) is None


def test_every_event_of_a_batch_has_its_own_answer(flow: View) -> None:
    anns, bobs, pods = an_event(metadata=ANNS), an_event(metadata=BOBS), an_event(event_type="pod.created")
    headers = {"content-type": "application/cloudevents-batch+json"} | bearer("ann", "events:publish")
    answer = flow.http.post(
        flow.stack.publish_url, headers=headers, json=[structured(event) for event in (anns, bobs, pods)]
    )
    assert answer.status_code == 207
    assert [result["status"] for result in answer.json()["results"]] == [202, 403, 403]
    assert [flow.document("events", event) is not None for event in (anns, bobs, pods)] == [True, False, False]


def test_without_the_issuers_keys_the_answer_is_503(flow: View, spawn: Spawner) -> None:
    """Senders try again after 503, and never after 401."""
    lost = spawn("publish", AUTH_JWKS_URL=f"http://127.0.0.1:{free_port()}/")
    answer = flow.publish(an_event(), lost.url)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_auth_off_accepts_every_caller_and_is_logged(flow: View, spawn: Spawner) -> None:
    """The line is JSON, and LOG_LEVEL=ERROR shows it."""
    opened = spawn("publish", AUTH="off", LOG_LEVEL="ERROR")
    assert flow.publish(an_event(metadata=BOBS), opened.url, authorization="").status_code == 202
    (line,) = [line for line in opened.log.read_text().splitlines() if "AUTH=off" in line]
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["function"]) == ("error", "twofold.web.auth", "publish")


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("changes", [{"event_type": "pod.created"}, {"metadata": {"service_name": "/pod_events"}}])
def test_an_event_of_the_cluster_needs_a_token_with_its_permission(
    flow: View, spawn: Spawner, changes: dict[str, Any]
) -> None:
    """Otherwise a caller could take the id of a pod event, or invent a pod event. AUTH=off is not enough."""
    event = an_event(**changes)
    for url, headers in ((spawn("publish", AUTH="off").url, {}), ("", bearer("ann", "events:publish:any"))):
        answer = flow.publish(event, url, **headers)
        assert answer.status_code == 403
        assert "events:publish:reserved" in answer.json()["detail"]
    assert flow.document("events", event) is None


@pytest.mark.parametrize("function", ["publish", "query", "audit", "admin"])
def test_a_public_function_does_not_start_without_an_issuer(stack: Stack, function: str) -> None:
    """A missing configuration of tokens must not open the function."""
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


def test_logs_hold_no_token(flow: View) -> None:
    secret = token("carol", ("events:publish",))
    flow.publish(an_event(), authorization=f"Bearer {secret}")
    flow.publish(an_event(), authorization=f"Bearer {secret[:-5]}")
    assert secret[:-20] not in "".join(log.read_text(errors="replace") for log in flow.stack.logs.glob("*.log"))
