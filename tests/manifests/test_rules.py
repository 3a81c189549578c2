"""Every rule holds in both overlays; each has a manifest that breaks it; and what the rules over all of them find."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dev.manifests.check import RULES, RULES_OVER_ALL, complaints, said
from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS
from dev.manifests.rules_schema import objects_are_valid
from dev.manifests.rules_sources import retry_budget
from tests.manifests import test_rules_access as access
from tests.manifests import test_rules_functions as functions
from tests.manifests import test_rules_network as network
from tests.manifests import test_rules_production as production
from tests.manifests import test_rules_schema as schema
from tests.manifests import test_rules_settings as settings_and_users
from tests.manifests import test_rules_sources as sources
from tests.manifests.breaking import Overlays, settings

pytestmark = pytest.mark.dev


def test_every_rule_holds(overlays: Overlays, project: Project) -> None:
    assert complaints(list(overlays.values()), project) == []


def test_no_rule_is_without_a_manifest_that_breaks_it() -> None:
    every = (access, functions, network, production, schema, settings_and_users, sources)
    assert {broken.rule for module in every for broken in module.BROKEN} == set(RULES)


class TestOverAll:
    """The rules that look at both overlays at once."""

    def found(self, overlays: Overlays, project: Project) -> list[str]:
        return [line for rule in RULES_OVER_ALL for line in rule(list(overlays.values()), project)]

    def test_a_setting_that_nothing_reads_is_found_out(self, overlays: Overlays, project: Project) -> None:
        """Pydantic ignores it, so it would never be missed."""
        changed = deepcopy(dict(overlays))
        settings(changed["local"])["RELAY_BACKOFF_S"] = "1"
        assert any("RELAY_BACKOFF_S is no setting" in line for line in self.found(changed, project))

    def test_a_setting_that_no_manifest_shows_is_found_out(self, overlays: Overlays, project: Project) -> None:
        changed = deepcopy(dict(overlays))
        for rendered in changed.values():
            del settings(rendered)["RELAY_BATCH"]
        assert any("RELAY_BATCH is a setting" in line for line in self.found(changed, project))

    def test_a_default_that_differs_is_found_out(self, overlays: Overlays, project: Project) -> None:
        changed = replace(project, base_settings={**project.base_settings, "RELAY_BATCH": "10"})
        assert any("RELAY_BATCH is 10, and its default 1000" in line for line in self.found(overlays, changed))


class TestWhatIsToBeDone:
    """Whoever adds a function is told what else to add, by name."""

    def test_for_a_function_without_a_service(self, overlays: Overlays, project: Project) -> None:
        grown = replace(project, functions=project.functions | {"shop"})
        found = complaints([overlays["production"]], grown)
        assert any("write knative/base/shop.yaml" in line for line in found)
        assert any("add an artifact with FUNCTION: shop to skaffold.yaml" in line for line in found)

    def test_for_an_artifact_without_a_function(self, overlays: Overlays, project: Project) -> None:
        changed = replace(project, artifacts={**project.artifacts, "twofold-shop": "shop"})
        assert any("twofold-shop for FUNCTION: shop" in line for line in complaints([overlays["local"]], changed))


def members(thing: Any, depth: int) -> Iterator[tuple[dict[str, Any], str]]:
    """What each member of an object is in, and its name, down to a depth."""
    if isinstance(thing, dict) and depth:
        for name, part in thing.items():
            yield thing, name
            yield from members(part, depth - 1)
    elif isinstance(thing, list):
        for part in thing:
            yield from members(part, depth)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_member_that_is_missing_is_a_complaint_at_most(overlays: Overlays, project: Project, overlay: str) -> None:
    """Never the end of the check: whoever wrote the manifest is to be told what is wrong."""
    judged = [rule for rule in RULES if rule is not objects_are_valid]  # whose schemas take long, and say more
    rendered = deepcopy(overlays[overlay])
    looked_at = 0
    for thing in {(thing["apiVersion"], thing["kind"]): thing for thing in rendered.objects}.values():
        for place, name in list(members(thing.get("spec", {}), 3)):
            part = place.pop(name)
            for rule in judged:
                list(said(rule, rendered, project))
            place[name] = part
            looked_at += 1
    assert looked_at > 50


def test_a_call_that_needs_another_right_is_found_out(overlays: Overlays, project: Project) -> None:
    more = project.calls["pod_events"] | {("", "pods", "delete")}
    changed = replace(project, calls={**project.calls, "pod_events": more})
    assert any("rules_access.NEEDS" in line for line in complaints([overlays["production"]], changed))


class TestRetryBudget:
    """By the rules of `dev.kafka_source.rules`, which are Knative's."""

    def budget(self, **delivery: Any) -> timedelta:
        return retry_budget({"spec": {"delivery": delivery}})

    def test_linear_delays_add_up(self) -> None:
        assert self.budget(retry=4, backoffPolicy="linear", backoffDelay="PT2S") == timedelta(seconds=2 + 4 + 6 + 8)

    def test_exponential_delays_double(self) -> None:
        assert self.budget(retry=3, backoffPolicy="exponential", backoffDelay="PT1S") == timedelta(seconds=2 + 4 + 8)

    def test_without_a_retry_there_is_none(self) -> None:
        assert self.budget(backoffPolicy="linear", backoffDelay="PT1H") == timedelta(0)

    def test_one_without_end_is_long_enough(self) -> None:
        assert self.budget(retry=5000, backoffPolicy="exponential", backoffDelay="PT1S") > timedelta(days=300)
