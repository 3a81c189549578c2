"""docs/pod-events.md names every event type, field, time, cause and setting of `pod_events`."""

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
    """Return the line for `name` in the table of a section."""
    part = TEXT.partition(f"\n{section}\n")[2].partition("\n## ")[0]
    (found,) = [line for line in part.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    return found


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.event_type)
def test_the_docs_name_every_field_of_a_payload(kind: type[facts.Fact]) -> None:
    own = row("## The facts", kind.event_type)
    shared = TEXT.partition("## The facts")[2].partition("\n| type")[0]
    for field in kind.model_fields:
        assert f"`{field}`" in own or f"`{field}`" in shared, field


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.event_type)
def test_the_docs_have_a_rule_for_every_time(kind: type[facts.Fact]) -> None:
    assert row("## Times", kind.event_type)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.event_type)
def test_the_docs_name_the_fields_that_may_differ(kind: type[facts.Fact]) -> None:
    named = re.findall(r"`(\w+)`", row("## The first observation wins", kind.event_type).split("|")[2])
    assert set(named) == facts.MAY_DIFFER[kind.event_type]


def test_the_docs_name_every_cause() -> None:
    for causes in (facts.FailureCause, facts.WaitingCause, facts.ContainerCause):
        for cause in get_args(causes):
            assert f"`{cause}`" in TEXT, cause


def test_the_docs_name_every_setting() -> None:
    for name in Settings.model_fields:
        if name.startswith(("pods_", "kubernetes_")) or name == "kubeconfig":
            assert f"`{name.upper()}`" in TEXT, name
