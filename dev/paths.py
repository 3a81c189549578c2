"""Where things lie: the checkout, its own scratch folder, and the cache that checkouts share."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: `functions/` lies in it, and every child that is a module of ours runs from here."""

SCRATCH = ROOT / ".twofold"
"""Logs of stacks that were started from the command line; git ignores it."""


def cache_dir() -> Path:
    """Where downloads and copies are kept between runs: `TWOFOLD_CACHE`, else `~/.cache/twofold`."""
    given = os.environ.get("TWOFOLD_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "twofold"
