"""Read the state of processes from `/proc`."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class ProcessStatus(NamedTuple):
    """A process, or a thread of a process, at one moment."""

    id: int
    state: str
    """The code in proc(5): `R`, `S`, `T` (stopped), `Z` (ended, not waited for)..."""
    parent: int
    group: int


def status(folder: Path) -> ProcessStatus | None:
    """Return the status in a folder such as `/proc/1`, or None if the process is gone."""
    try:
        text = (folder / "stat").read_text()
    except OSError:
        return None
    state, parent, group = text.rpartition(")")[2].split()[:3]
    return ProcessStatus(int(folder.name), state, int(parent), int(group))


def processes(folder: Path = Path("/proc")) -> Iterator[ProcessStatus]:
    """Yield the processes of the machine, or with `/proc/PID/task` the threads of a process."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.name.isdigit()]
    except OSError:
        return
    for entry in entries:
        if found := status(entry):
            yield found


def is_stopped(group: int) -> bool:
    """Return True if every thread of the group is stopped: a signal takes effect some time after its sending."""
    members = [process.id for process in processes() if process.group == group]
    return all(thread.state in "TZ" for pid in members for thread in processes(Path(f"/proc/{pid}/task")))
