"""Each function from its image alone: what its Dockerfile installs, that function and shared/, as a container."""

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

from dev.image import Builder, Stage
from dev.manifests.project import Project
from dev.manifests.rendering import Rendered
from dev.manifests.rules_functions import OPEN
from dev.manifests.rules_settings import environment
from dev.paths import ROOT
from dev.processes import Child, free_port, wait_until
from tests.helpers import View, an_event, delivered, plain_record
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


def keeps_letters(flow: View, url: str) -> None:
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


def tells_of_pods(flow: View, url: str) -> None:
    states = new_life(names()[0])
    for state in states:
        headers, body = state.request()
        assert flow.http.post(url, headers=headers, content=body).status_code == HTTPStatus.OK
    told = {document["_id"] for document in flow.database.events.find({"payload.pod_uid": states[0].uid})}
    assert told == set(first_observed(states))


def answers(flow: View, url: str) -> None:
    event = an_event()
    flow.accept(event)
    assert flow.http.get(f"{url}/events/{event.event_id}").json()["digest"] == event.digest.hex()
    assert flow.http.get(f"{url}/openapi.json").status_code == HTTPStatus.OK


def looks_after_events(flow: View, url: str) -> None:
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
    "dead_letters": keeps_letters,
    "relay": relays,
    "pod_events": tells_of_pods,
    "query": answers,
    "admin": looks_after_events,
    "audit": reads_the_log,
}
"""What shows, at a function's address, that it does its work."""


def test_each_function_has_a_job_here() -> None:
    assert sorted(JOBS) == FUNCTIONS, "say in JOBS what shows that the new function works"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that any user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="twofold-images-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def builder(place: Path) -> Builder:
    """What installs the same is installed once, afresh for this run of the tests."""
    return Builder(place / "dependencies")


@pytest.fixture
def image(request: pytest.FixtureRequest, builder: Builder, place: Path) -> Iterator[Stage]:
    """The image of the function that the test is run with, which nobody may write to."""
    made = builder.build(request.param, place / f"image-{uuid4().hex}")
    made.seal()
    yield made
    made.remove()


def asked(child: Child, port: int, path: str) -> bool:
    """Whether the probe of the manifests is answered."""
    try:
        return child.running and httpx.get(f"http://127.0.0.1:{port}{path}").status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False


def writable(place: Path) -> Path:
    """A folder that every user may write to, as an emptyDir is."""
    folder = place / uuid4().hex
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    return folder


def files(stage: Stage) -> dict[str, float]:
    return {str(path): path.lstat().st_mtime for path in stage.root.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("image", FUNCTIONS, indirect=True)
def test_it_starts_from_its_image_alone_and_does_its_job(
    image: Stage, flow: View, overlays: Mapping[str, Rendered], place: Path, tmp_path: Path
) -> None:
    """With the environment of the manifests but for the addresses, an unprivileged user, and a read-only tree."""
    name, port = image.arguments["FUNCTION"], free_port()
    pod = overlays["production"].functions[name]["spec"]["template"]["spec"]
    env = environment(overlays["production"], pod) | {"HOST": "127.0.0.1", "PORT": str(port)}
    env |= {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN"}
    env |= flow.stack.function_environment(name) | {"TMPDIR": str(writable(place))}
    probe = pod["containers"][0]["readinessProbe"]["httpGet"]["path"]
    before = files(image)
    function = image.container(name, env, logs=tmp_path, ready=lambda child: asked(child, port, probe))
    try:
        function.start()
        JOBS[name](flow, f"http://127.0.0.1:{port}")
    finally:
        function.terminate(20.0)
    assert files(image) == before


@pytest.mark.slow
@pytest.mark.parametrize("image", FUNCTIONS, indirect=True)
def test_it_holds_only_what_it_needs(image: Stage, project: Project) -> None:
    """No other function, no installer, no tests; each client only where it is used; and nobody may add to it."""
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
def test_a_file_that_skaffold_syncs_is_run(
    image: Stage, flow: View, overlays: Mapping[str, Rendered], place: Path, tmp_path: Path
) -> None:
    """The command of the local overlay, and of skaffold.yaml its sync rules and its hook."""
    port, scratch = free_port(), writable(place)
    (container,) = overlays["local"].functions["store"]["spec"]["template"]["spec"]["containers"]
    sync = skaffold_sync("twofold-store")
    (hook,) = sync["hooks"]["after"]
    rule = next(rule for rule in sync["manual"] if ROOT / CHANGED in ROOT.glob(rule["src"]))
    scratches = {"/tmp/": f"{scratch}/", "/sync": f"{scratch}/sync"}

    def here(command: list[str]) -> list[str]:
        """With the emptyDirs where this test has them."""
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
        ready=lambda child: asked(child, port, "/healthz"),
        command=here(container["command"]),
    )

    def says() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz").text
        except httpx.TransportError:  # the server starts again
            return ""

    try:
        function.start()
        assert "changed" not in says()
        text = (ROOT / CHANGED).read_text()
        assert text.count('"status": "ok"') == 1
        synced = Path(here([rule["dest"]])[0], CHANGED)
        synced.write_text(text.replace('"status": "ok"', '"status": "changed"'))
        subprocess.run(image.run_as_user(here(hook["container"]["command"])), check=True)
        assert wait_until(lambda: "changed" in says(), within=30.0, every=0.1)
    finally:
        function.terminate(20.0)


CHANGED = "shared/twofold/http.py"


def skaffold_sync(image: str) -> Any:
    """What skaffold.yaml says of file sync for an image."""
    artifacts = yaml.safe_load((ROOT / "skaffold.yaml").read_text())["build"]["artifacts"]
    return next(artifact["sync"] for artifact in artifacts if artifact["image"] == image)
