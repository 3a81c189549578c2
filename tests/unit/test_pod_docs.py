"""docs/pod-events.md says what the code does: each type, each field, each cause, each default."""

import re
from typing import get_args

import pytest

from dev.paths import ROOT
from functions.pod_events import facts
from twofold.settings import Settings

pytestmark = pytest.mark.guarantee("G6")

TEXT = (ROOT / "docs" / "pod-events.md").read_text()
TYPES = [kind for kind in vars(facts).values() if isinstance(kind, type) and "event_type" in vars(kind)]


def row(section: str, name: str) -> str:
    """The line of a section's table that is about `name`."""
    part = TEXT.partition(f"\n{section}\n")[2].partition("\n## ")[0]
    (found,) = [line for line in part.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    return found


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.event_type)
def test_every_field_of_a_payload_is_named(kind: type[facts.Fact]) -> None:
    own = row("## The facts", kind.event_type)
    common = TEXT.partition("## The facts")[2].partition("\n| type")[0]
    for field in kind.model_fields:
        assert f"`{field}`" in own or f"`{field}`" in common, field


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.event_type)
def test_every_time_has_its_rule(kind: type[facts.Fact]) -> None:
    assert row("## Times", kind.event_type)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.event_type)
def test_what_may_differ_is_said(kind: type[facts.Fact]) -> None:
    said = re.findall(r"`(\w+)`", row("## The first observation wins", kind.event_type).split("|")[2])
    assert set(said) == facts.MAY_DIFFER[kind.event_type]


def test_every_cause_is_named() -> None:
    for causes in (facts.FailureCause, facts.WaitingCause, facts.ContainerCause):
        for cause in get_args(causes):
            assert f"`{cause}`" in TEXT, cause


def test_every_setting_is_named() -> None:
    for name in Settings.model_fields:
        if name.startswith(("pods_", "kubernetes_")) or name == "kubeconfig":
            assert f"`{name.upper()}`" in TEXT, name
