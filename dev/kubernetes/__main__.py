"""`python -m dev.kubernetes`: build what the cluster tests need into the cache, and say how long each took.

What this machine can't have within the budget is named in one line, with the reason. Ends with status 3 if there is no
API server, so that the tests on it are to be left out.
"""

import sys
import time

from dev.kubernetes.golang import BUDGET_VARIABLE, PROGRAMS, Unbuilt, budget, program
from dev.kubernetes.knative import manifests

LEFT_OUT = 3
_LATER = "skaffold"  # the largest, and the one that the fewest tests need


def main() -> int:
    """Build all; what was built stays, also if the next one could not be. Raises `golang.BuildFailed`."""
    deadline = time.monotonic() + budget()
    try:
        for name in PROGRAMS:
            if name != _LATER:
                _build(name, deadline)
        print(f"Knative's manifests: {manifests(deadline)}", flush=True)
    except Unbuilt as reason:
        print(
            f"Left out, with {BUDGET_VARIABLE}={budget():g}: the tests on a real Kubernetes API server, since {reason}."
        )
        return LEFT_OUT
    try:
        _build(_LATER, deadline)
    except Unbuilt as reason:
        print(f"Left out, with {BUDGET_VARIABLE}={budget():g}: the tests of {_LATER}, since {reason}.")
    return 0


def _build(name: str, deadline: float) -> None:
    path, seconds = program(name, deadline)
    print(f"{name}: {f'built in {seconds:.0f} s' if seconds else 'in the cache'} ({path})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
