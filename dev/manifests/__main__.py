"""Render both overlays as YAML, or check both overlays: `python -m dev.manifests render|check`."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from dev.manifests.check import RULES, complaints
from dev.manifests.project import Project
from dev.manifests.rendering import OVERLAYS, RenderFailed, stream
from dev.manifests.rendering import render as rendered

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
complain = Console(stderr=True, style="red", soft_wrap=True)

Overlays = Annotated[list[str] | None, typer.Argument(help="local or production; both by default")]


@app.command()
def render(overlays: Overlays = None) -> None:
    """Print the objects of the overlays as one YAML stream, without a cluster."""
    try:
        for overlay in overlays or OVERLAYS:
            print(f"---\n# knative/overlays/{overlay}\n{stream(overlay)}", end="")
    except RenderFailed as error:
        complain.print(str(error), markup=False)
        sys.exit(1)


@app.command()
def check() -> None:
    """Check both overlays by every rule; exit with status 1 after a complaint."""
    try:
        found = complaints([rendered(overlay) for overlay in OVERLAYS], Project.here())
    except RenderFailed as error:
        found = [str(error)]
    for line in found:
        complain.print(f"FAILED {line}", markup=False, highlight=False)
    if found:
        sys.exit(1)
    print(f"{len(RULES)} rules hold in both overlays")


if __name__ == "__main__":
    app()
