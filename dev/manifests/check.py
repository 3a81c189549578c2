"""All rules over all overlays."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dev.manifests import (
    rules_access,
    rules_functions,
    rules_network,
    rules_production,
    rules_schema,
    rules_settings,
    rules_sources,
)
from dev.manifests.project import Project
from dev.manifests.rendering import Rendered

On = TypeVar("On")
Rule = Callable[[Rendered, Project], Iterator[str]]
RuleOverAll = Callable[[Sequence[Rendered], Project], Iterator[str]]

RULES_OVER_ALL: tuple[RuleOverAll, ...] = rules_settings.RULES_OVER_ALL
RULES: tuple[Rule, ...] = (
    *rules_schema.RULES,
    *rules_functions.RULES,
    *rules_sources.RULES,
    *rules_settings.RULES,
    *rules_access.RULES,
    *rules_network.RULES,
    *rules_production.RULES,
)
"""Each looks at one overlay. What a rule says of an object, it says in words that name what to change."""


def complaints(overlays: Sequence[Rendered], project: Project) -> list[str]:
    """What is wrong, a line each; empty if nothing is."""
    found = [
        f"{rendered.overlay}: {line}"
        for rendered in overlays
        for rule in RULES
        for line in said(rule, rendered, project)
    ]
    return [*found, *(line for rule in RULES_OVER_ALL for line in said(rule, overlays, project))]


def said(rule: Callable[[On, Project], Iterator[str]], on: On, project: Project) -> Iterator[str]:
    """What a rule says, or that it can't judge: where an object lacks what every one of its kind has."""
    try:
        yield from rule(on, project)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        yield f"{rule.__name__}: an object lacks a member, or has another kind of one: {error!r}"
