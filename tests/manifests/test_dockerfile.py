"""What can be seen of the Dockerfile without running it; tests/manifests/test_images.py runs it."""

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
    """To one release of Python and of Debian; which digest that is, no machine without a registry can say."""
    bases = [value.split()[0] for value in of("FROM")]
    assert len(bases) == 2, "what builds stays behind"
    for base in bases:
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)


def test_its_user_is_nobody_in_particular() -> None:
    """By number: the kubelet can't tell who a name is, and refuses it where root is forbidden."""
    assert [re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", user) is not None for user in of("USER")] == [True]
    assert [name for name, _ in STEPS if name in ("USER", "CMD", "RUN")][-2:] == ["USER", "CMD"]


def test_its_command_is_the_process() -> None:
    """In exec form: a shell in between would keep SIGTERM to itself."""
    assert [command.startswith("[") for command in of("CMD")] == [True]
    assert of("ENTRYPOINT") == []


def test_packages_are_pinned() -> None:
    (install,) = [line for line in of("RUN") if "pip install" in line]
    assert "--constraint constraints.txt" in install


def test_no_registry_is_named() -> None:
    """Where packages and images come from is the setting of whoever builds."""
    assert not re.search(r"https?:|index|\.io/|\.org", (ROOT / "Dockerfile").read_text())


def test_only_what_an_image_needs_is_sent_to_the_builder() -> None:
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
