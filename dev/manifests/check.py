"""All rules over all overlays."""

from collections.abc import Callable, Iterator, Sequence

from dev.manifests import rules_access, rules_functions, rules_schema, rules_settings, rules_sources
from dev.manifests.project import Project
from dev.manifests.rendering import Rendered

Rule = Callable[[Rendered, Project], Iterator[str]]
RuleOverAll = Callable[[Sequence[Rendered], Project], Iterator[str]]

RULES_OVER_ALL: tuple[RuleOverAll, ...] = rules_settings.RULES_OVER_ALL
RULES: tuple[Rule, ...] = (
    *rules_schema.RULES,
    *rules_functions.RULES,
    *rules_sources.RULES,
    *rules_settings.RULES,
    *rules_access.RULES,
)
"""Each looks at one overlay. What a rule says of an object, it says in words that name what to change."""


def complaints(overlays: Sequence[Rendered], project: Project) -> list[str]:
    """What is wrong, a line each; empty if nothing is."""
    found = [
        f"{rendered.overlay}: {line}" for rendered in overlays for rule in RULES for line in rule(rendered, project)
    ]
    return [*found, *(line for rule in RULES_OVER_ALL for line in rule(overlays, project))]
