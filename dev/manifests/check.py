"""The list of rules, and their run over both overlays."""

from collections.abc import Callable, Iterator, Sequence

from dev.manifests import (
    rules_access,
    rules_functions,
    rules_network,
    rules_pods,
    rules_production,
    rules_settings,
    rules_sources,
)
from dev.manifests.project import Project
from dev.manifests.rendering import Rendered

Rule = Callable[[Rendered, Project], Iterator[str]]
"""A function that yields complaints about one overlay. A complaint names the object and the member to change."""

_MODULES = (rules_functions, rules_settings, rules_sources, rules_access, rules_network, rules_production, rules_pods)
RULES: tuple[Rule, ...] = tuple(
    rule for module in _MODULES for name, rule in vars(module).items() if name.startswith("require_")
)
"""The functions named `require_*` of every rule module."""


def complaints(overlays: Sequence[Rendered], project: Project) -> list[str]:
    """Return the complaints of every rule about every overlay, as lines."""
    return [
        f"{rendered.overlay}: {line}"
        for rendered in overlays
        for rule in RULES
        for line in complaints_of(rule, rendered, project)
    ]


def complaints_of(rule: Rule, rendered: Rendered, project: Project) -> Iterator[str]:
    """Yield the complaints of one rule. An object without an expected member is a complaint too."""
    try:
        yield from rule(rendered, project)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        yield f"{rule.__name__}: an object lacks a member, or a member has the wrong type: {error!r}"
