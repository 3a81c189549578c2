"""Render an overlay as YAML, or check both overlays: `python -m dev.manifests render OVERLAY|check`."""

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

Overlay = Annotated[str, typer.Argument(help=" or ".join(OVERLAYS))]


@app.command()
def render(overlay: Overlay = "") -> None:
    """Print the objects of one overlay as a YAML stream, without a cluster.

    Two overlays have objects of the same names: in one stream, the second would overwrite the first.
    """
    if overlay not in OVERLAYS:
        found = f"there is no overlay {overlay!r}" if overlay else "the overlay is missing"
        complain.print(f"{found}: make render OVERLAY={' or OVERLAY='.join(OVERLAYS)}", markup=False)
        sys.exit(2)
    try:
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
