"""Build the programs of the cluster tests into the cache: `python -m tests.kubernetes`.

A line names each program and the time of its build, and the reason if it cannot be built in time. Without an API
server the exit status is 3, and the tests on it are left out.
"""

import sys
import time

from tests.kubernetes.golang import BUDGET_VARIABLE, PROGRAMS, Unbuilt, budget, program
from tests.kubernetes.knative import manifests

LEFT_OUT = 3
_LATER = "skaffold"  # the largest program, for the fewest tests


def main() -> int:
    """Build all programs. A failure keeps the programs built so far. Raises `golang.BuildFailed`."""
    deadline = time.monotonic() + budget()
    try:
        for name in PROGRAMS:
            if name != _LATER:
                _build(name, deadline)
        print(f"Knative's manifests: {manifests(deadline)}", flush=True)
    except Unbuilt as reason:
        return _left_out("on a real Kubernetes API server", reason, LEFT_OUT)
    try:
        _build(_LATER, deadline)
    except Unbuilt as reason:
        return _left_out(f"of {_LATER}", reason, 0)
    return 0


def _build(name: str, deadline: float) -> None:
    path, seconds = program(name, deadline)
    print(f"{name}: {f'built in {seconds:.0f} s' if seconds else 'in the cache'} ({path})", flush=True)


def _left_out(tests: str, reason: Unbuilt, status: int) -> int:
    print(f"Left out, with {BUDGET_VARIABLE}={budget():g}: the tests {tests}, since {reason}.")
    return status


if __name__ == "__main__":
    sys.exit(main())
