"""Processes as the system sees them: which of them run, and who has started them."""

from __future__ import annotations

from pathlib import Path


def alive(pid: int) -> bool:
    """Whether any thread of a process runs: one that has ended and that nobody has waited for yet does not.

    The first thread is often gone before the others, one that waits for the disk for instance; until the last of them
    is, the process keeps its files open, and with them its locks and its port.
    """
    return any(_runs(task) for task in _tasks(pid))


def _tasks(pid: int) -> list[Path]:
    try:
        return [*Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _runs(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [child for child in found if alive(child)]


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    return [pid, *(member for child in children(pid) for member in family(child))]


def command_line(pid: int) -> list[str]:
    """Return the words with which a process was started; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
