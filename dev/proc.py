"""What Linux says about processes in `/proc`."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Status(NamedTuple):
    """One process, or one thread of it, at one moment."""

    id: int
    state: str
    """`R`, `S`, `T` (stopped), `Z` (ended, and nobody has asked how)..."""
    parent: int
    group: int


def status(folder: Path) -> Status | None:
    """The status in a folder of `/proc`; None if it is gone."""
    try:
        text = (folder / "stat").read_text()
    except OSError:
        return None
    state, parent, group = text.rpartition(")")[2].split()[:3]
    return Status(int(folder.name), state, int(parent), int(group))


def processes() -> Iterator[Status]:
    """All processes that there are."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (found := status(folder)):
            yield found


def is_stopped(group: int) -> bool:
    """Whether every thread of every process in the group is stopped: a signal takes effect after it was sent."""
    return all(
        thread.state in "TZ" for process in processes() if process.group == group for thread in _threads(process.id)
    )


def _threads(process: int) -> list[Status]:
    try:
        folders = list(Path(f"/proc/{process}/task").iterdir())
    except OSError:
        return []
    return [found for folder in folders if (found := status(folder))]
