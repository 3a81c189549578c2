"""The folders of this checkout and of the cache."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout. Child processes that run modules of this checkout start here."""

SCRATCH = ROOT / ".twofold"
"""The logs of stacks of the command line. Git ignores this folder."""


def cache_dir() -> Path:
    """Return the folder for downloads that all checkouts share: `TWOFOLD_CACHE`, or else `~/.cache/twofold`."""
    given = os.environ.get("TWOFOLD_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "twofold"
