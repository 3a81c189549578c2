"""Rules for the text of the Dockerfile. tests/manifests/test_images.py runs its steps."""

import re
import shlex

import pytest
from dockerfile_parse import DockerfileParser

from dev.paths import ROOT

pytestmark = pytest.mark.dev

STEPS = [(step["instruction"], step["value"]) for step in DockerfileParser(path=str(ROOT / "Dockerfile")).structure]


def of(instruction: str) -> list[str]:
    return [value for name, value in STEPS if name == instruction]


def test_every_base_is_pinned() -> None:
    """A base names a release of Python and of Debian. Only a registry knows the digest."""
    bases = [value.split()[0] for value in of("FROM")]
    assert len(bases) == 2, "the image needs a build stage and a final stage"
    for base in bases:
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)


def test_its_user_is_a_number_above_9999() -> None:
    """The user is a number: where root is forbidden, the kubelet refuses a user name."""
    assert [re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", user) is not None for user in of("USER")] == [True]
    assert [name for name, _ in STEPS if name in ("USER", "CMD", "RUN")][-2:] == ["USER", "CMD"]


def test_its_command_runs_without_a_shell() -> None:
    """The exec form is needed: a shell would not pass SIGTERM on."""
    assert [command.startswith("[") for command in of("CMD")] == [True]
    assert of("ENTRYPOINT") == []


def test_packages_are_pinned() -> None:
    (install,) = [line for line in of("RUN") if "pip install" in line]
    assert "--constraint constraints.txt" in install


def test_no_registry_is_named() -> None:
    """The machine that builds the image sets its registries."""
    assert not re.search(r"https?:|index|\.io/|\.org", (ROOT / "Dockerfile").read_text())


def test_the_builder_gets_only_the_copied_folders() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for value in of("COPY")
        if not value.startswith("--from")
        for source in shlex.split(value)[:-1]
    }
    assert let_through == copied
