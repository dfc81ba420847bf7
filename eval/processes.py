"""The product as processes of its own: starting its commands, and the peak memory of each process that they start.

Memory is read from Linux's /proc every half second (VmHWM, the most that was ever resident; proc(5)); a process that
lives shorter than that may be missed, and elsewhere nothing is found. Knows no measure but that.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from eval.tables import ROOT, Table

SAMPLE_SECONDS = 0.5
STOP_SECONDS = 60
_MEMORY = re.compile(r"^Vm(HWM|RSS):\s+(\d+) kB$", re.MULTILINE)


def start(*arguments: str | Path, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start ``citewell`` with ``arguments``; standard output is a pipe."""
    command = [sys.executable, "-m", "api.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
    )


@contextmanager
def serving(data: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a data folder on a free port of this machine, with the server's own worker; yield its address and it."""
    with start("serve", "--port", "0", "--data", data, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None  # noqa: S101  it is a pipe
        try:
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None:
                raise SystemExit("`citewell serve` did not start; run it by hand to see why.")
            yield found[0], server
        finally:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


class PeakMemory:
    """Watches a process and all below it from entering to leaving, in a thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, tuple[str, int]] = {}
        self._together = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def table(self) -> Table:
        """Return a row for each kind of process: how many there were, and the peak of the largest, in MiB."""
        rows = [["process", "started", "peak of the largest, MiB"]]
        for name in dict.fromkeys(name for name, _ in self._peaks.values()):
            peaks = [peak for other, peak in self._peaks.values() if other == name]
            rows.append([name, str(len(peaks)), f"{max(peaks) / 1024:,.0f}"])
        return [*rows, ["all at one time, shared pages counted for each", "", f"{self._together / 1024:,.0f}"]]

    def _watch(self) -> None:
        while True:
            resident = 0
            for pid in [self._pid, *_below(self._pid)]:
                if memory := _memory(pid):
                    resident += memory["RSS"]
                    self._peaks[pid] = (_name(pid), memory["HWM"])
            self._together = max(self._together, resident)
            if self._stop.wait(SAMPLE_SECONDS):
                return


def _below(pid: int) -> Iterator[int]:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, _read(file).split()):
            yield child
            yield from _below(child)


def _memory(pid: int) -> dict[str, int]:
    """Return the resident size (RSS) and its peak (HWM) in KiB; nothing of a process that has ended."""
    found = {name: int(size) for name, size in _MEMORY.findall(_read(Path(f"/proc/{pid}/status")))}
    return found if len(found) == 2 else {}


def _name(pid: int) -> str:
    """Return what a process is: ``citewell`` with its command, a Python module, or the name of a program."""
    arguments = _read(Path(f"/proc/{pid}/cmdline")).split("\0")
    if "-m" not in arguments:
        return Path(arguments[0]).name or "?"
    module, *more = arguments[arguments.index("-m") + 1 :]
    return f"citewell {more[0]}" if module == "api.cli" and more else module


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # it has just ended
        return ""


def finished(process: subprocess.Popen[str], statuses: Sequence[int] = (0,)) -> str:
    """Wait for a command and return what it wrote; ends the program with its words if its status is another one."""
    out, said = process.communicate()
    if process.returncode not in statuses:
        raise SystemExit(f"{' '.join(map(str, process.args[3:]))}: status {process.returncode}: {said}")  # type: ignore[index]
    return out
