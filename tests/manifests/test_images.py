"""Each function runs from its image alone: its dependencies, its folder and shared/."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from dev.manifests.project import Project
from dev.manifests.rendering import Rendered
from dev.manifests.rules_functions import OPEN
from dev.manifests.rules_settings import environment
from dev.paths import ROOT
from dev.process.child import Child, free_port, wait_until
from tests.helpers import View, an_event, delivered, plain_record
from tests.manifests.image import Builder, Stage
from tests.pods import first_observed, names, new_life

pytestmark = pytest.mark.dev

FUNCTIONS = sorted(main.parent.name for main in ROOT.glob("functions/*/main.py"))


def publishes(flow: View, url: str) -> None:
    event = an_event()
    assert flow.publish(event, url).status_code == HTTPStatus.ACCEPTED
    assert flow.document("events", event) is not None
    assert flow.relayed([event])


def stores(flow: View, url: str) -> None:
    event = an_event()
    assert flow.store(delivered(event), url).status_code == HTTPStatus.OK
    assert flow.held("event_store", [event]) == {event.event_id}


def keeps_dead_letters(flow: View, url: str) -> None:
    body = uuid4().bytes
    assert flow.store(plain_record(body), url).status_code == HTTPStatus.OK
    assert flow.database.dead_letters.count_documents({"body": body}) == 1


def relays(flow: View, url: str) -> None:
    event = an_event()
    flow.accept(event)
    assert flow.store(delivered(event)).status_code == HTTPStatus.OK

    def relayed() -> bool:
        assert flow.http.post(url).status_code == HTTPStatus.OK
        return flow.outbox_entries([event]) == 0

    assert wait_until(relayed, within=60.0, every=0.5)


def publishes_pod_events(flow: View, url: str) -> None:
    states = new_life(names()[0])
    for state in states:
        headers, body = state.request()
        assert flow.http.post(url, headers=headers, content=body).status_code == HTTPStatus.OK
    published = {document["_id"] for document in flow.database.events.find({"payload.pod_uid": states[0].uid})}
    assert published == set(first_observed(states))


def answers(flow: View, url: str) -> None:
    event = an_event()
    flow.accept(event)
    assert flow.http.get(f"{url}/events/{event.event_id}").json()["digest"] == event.digest.hex()
    assert flow.http.get(f"{url}/openapi.json").status_code == HTTPStatus.OK


def administers_events(flow: View, url: str) -> None:
    event = an_event()
    flow.accept(event)
    assert flow.http.get(f"{url}/events/{event.event_id}").json()["outbox"]["state"] == "new"
    lines = flow.http.get(f"{url}/export", params={"format": "ndjson", "aggregate": event.aggregate_id}).text
    assert len(lines.splitlines()) == 1
    refused = flow.http.delete(f"{url}/events/{event.event_id}", params={"reason": "a test"})
    assert refused.status_code == HTTPStatus.CONFLICT


def reads_the_log(flow: View, url: str) -> None:
    event = an_event()
    assert flow.store(delivered(event)).status_code == HTTPStatus.OK
    assert flow.http.get(f"{url}/events/{event.event_id}").json()["digest"] == event.digest.hex()
    assert flow.http.get(f"{url}/health").json()["status"] == "ok"


JOBS: Mapping[str, Callable[[View, str], None]] = {
    "publish": publishes,
    "store": stores,
    "dead_letters": keeps_dead_letters,
    "relay": relays,
    "pod_events": publishes_pod_events,
    "query": answers,
    "admin": administers_events,
    "audit": reads_the_log,
}
"""A check of each function's work at its address."""


def test_each_function_has_a_job_here() -> None:
    assert sorted(JOBS) == FUNCTIONS, "add a check of the new function to JOBS"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Yield a folder that every user may read."""
    folder = Path(tempfile.mkdtemp(prefix="twofold-images-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def builder(place: Path) -> Builder:
    """Return a builder for this run: functions with equal dependencies share an installation."""
    return Builder(place / "dependencies")


@pytest.fixture
def image(request: pytest.FixtureRequest, builder: Builder, place: Path) -> Iterator[Stage]:
    """Yield the read-only image of the test's function."""
    made = builder.build(request.param, place / f"image-{uuid4().hex}")
    made.seal()
    yield made
    made.remove()


def answers_probe(child: Child, port: int, path: str) -> bool:
    """Return True if the manifests' probe gets 200."""
    try:
        return child.running and httpx.get(f"http://127.0.0.1:{port}{path}").status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False


def writable(place: Path) -> Path:
    """Return a folder that every user may write to, such as an emptyDir."""
    folder = place / uuid4().hex
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    return folder


def files(stage: Stage) -> dict[str, float]:
    return {str(path): path.lstat().st_mtime for path in stage.root.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("image", FUNCTIONS, indirect=True)
def test_a_function_starts_from_its_image_and_does_its_job(
    image: Stage, flow: View, overlays: Mapping[str, Rendered], place: Path, tmp_path: Path
) -> None:
    """The function has the manifests' environment except addresses, an unprivileged user and read-only files."""
    name, port = image.arguments["FUNCTION"], free_port()
    pod = overlays["production"].functions[name]["spec"]["template"]["spec"]
    env = environment(overlays["production"], pod) | {"HOST": "127.0.0.1", "PORT": str(port)}
    env |= {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN"}
    env.pop("KAFKA_SSL_CAFILE", None)  # the broker here has no TLS
    env |= flow.stack.function_environment(name) | {"TMPDIR": str(writable(place))}
    probe = pod["containers"][0]["readinessProbe"]["httpGet"]["path"]
    before = files(image)
    function = image.container(name, env, logs=tmp_path, ready=lambda child: answers_probe(child, port, probe))
    try:
        function.start()
        JOBS[name](flow, f"http://127.0.0.1:{port}")
    finally:
        function.terminate(20.0)
    assert files(image) == before


@pytest.mark.fault("D1")
@pytest.mark.slow
@pytest.mark.parametrize("image", ["operator"], indirect=True)
def test_the_operators_image_runs_twofold(
    image: Stage, flow: View, overlays: Mapping[str, Rendered], place: Path
) -> None:
    """As `kubectl exec` does: the manifest's environment except addresses, and the operator's own database user."""
    (deployment,) = overlays["production"].of("Deployment")
    env = environment(overlays["production"], deployment["spec"]["template"]["spec"])
    env |= {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN"}
    env.pop("KAFKA_SSL_CAFILE", None)  # the broker here has no TLS
    env |= flow.stack.function_environment("operator") | {"TMPDIR": str(writable(place))}

    def twofold(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = image.run_as_user([str(image.root / "venv/bin/twofold"), *arguments])
        environ = image.variables | env
        return subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)

    event = an_event()
    flow.accept(event)
    status = twofold("status", "--json")
    assert status.returncode == 0, status.stderr
    run = twofold("relay", "run")
    assert run.returncode == 0, run.stderr
    assert twofold("history", "--limit", "1").returncode == 0
    assert twofold("dead-letters", "count").returncode == 0


@pytest.mark.fault("D1")
@pytest.mark.slow
@pytest.mark.parametrize("image", ["operator"], indirect=True)
def test_the_operators_image_holds_no_function(image: Stage) -> None:
    app = image.root / "app"
    assert [path.name for path in (app / "functions").rglob("*.py")] == []
    assert image.user[0] != 0


@pytest.mark.slow
@pytest.mark.parametrize("image", FUNCTIONS, indirect=True)
def test_an_image_holds_only_the_needed_files(image: Stage, project: Project) -> None:
    """An image has no other function, no installer, no tests and no unused client, and it is read-only."""
    name = image.arguments["FUNCTION"]
    app = image.root / "app"
    assert sorted(path.name for path in app.iterdir()) == ["functions", "shared"]
    assert [path.name for path in (app / "functions").iterdir()] == [name]

    def can(*command: str) -> bool:
        program = [str(image.root / "venv/bin/python"), *command]
        run = subprocess.run(image.run_as_user(program), env=image.variables, capture_output=True, check=False)
        return run.returncode == 0

    assert can("-c", "import pymongo, functions_framework")
    assert can("-c", "import confluent_kafka") == (name in project.senders)
    assert not can("-c", "import kafka")
    assert can("-c", "import kubernetes") == bool(project.calls[name])
    assert can("-c", "import jwt") == (name in OPEN)
    assert not can("-c", "import pip")
    assert not can("-c", "import pytest")
    assert not can("-c", f"open({str(app / 'shared/twofold/more.py')!r}, 'w')")
    assert image.user[0] != 0


@pytest.mark.slow
@pytest.mark.parametrize("image", ["store"], indirect=True)
def test_a_function_runs_a_file_that_skaffold_syncs(
    image: Stage, flow: View, overlays: Mapping[str, Rendered], place: Path, tmp_path: Path
) -> None:
    """The test uses the local overlay's command, and the sync rules and the hook of skaffold.yaml."""
    port, scratch = free_port(), writable(place)
    (container,) = overlays["local"].functions["store"]["spec"]["template"]["spec"]["containers"]
    sync = skaffold_sync("twofold-store")
    (hook,) = sync["hooks"]["after"]
    rule = next(rule for rule in sync["manual"] if ROOT / CHANGED in ROOT.glob(rule["src"]))
    scratches = {"/tmp/": f"{scratch}/", "/sync": f"{scratch}/sync"}

    def here(command: list[str]) -> list[str]:
        """Return the command with the emptyDirs of this test."""
        for of_the_pod, of_this_test in scratches.items():
            command = [part.replace(of_the_pod, of_this_test) for part in command]
        return command

    (scratch / "sync").mkdir()
    (scratch / "sync").chmod(0o777)
    env = flow.stack.function_environment("store") | {"HOST": "127.0.0.1", "PORT": str(port), "TMPDIR": str(scratch)}
    function = image.container(
        "store",
        env,
        logs=tmp_path,
        ready=lambda child: answers_probe(child, port, "/healthz"),
        command=here(container["command"]),
    )

    def status() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz").text
        except httpx.TransportError:  # the server restarts
            return ""

    try:
        function.start()
        assert "changed" not in status()
        text = (ROOT / CHANGED).read_text()
        assert text.count('"status": "ok"') == 1
        synced = Path(here([rule["dest"]])[0], CHANGED)
        synced.write_text(text.replace('"status": "ok"', '"status": "changed"'))
        subprocess.run(image.run_as_user(here(hook["container"]["command"])), check=True)
        assert wait_until(lambda: "changed" in status(), within=30.0, every=0.1)
    finally:
        function.terminate(20.0)


CHANGED = "shared/twofold/web/function.py"


def skaffold_sync(image: str) -> Any:
    """Return the file sync of an image in skaffold.yaml."""
    artifacts = yaml.safe_load((ROOT / "skaffold.yaml").read_text())["build"]["artifacts"]
    return next(artifact["sync"] for artifact in artifacts if artifact["image"] == image)
