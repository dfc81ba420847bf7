"""Numbers that several processes keep together: each writes its own into mapped files, any of them reads all.

A counter of a process that has ended still counts, until the next server begins anew; its gauges do not. Who lives is
known by a lock that the kernel gives back whatever happens, so that a process id that is used again misleads nobody.
The files have their full size on the disk from the start: a page that could not be written when the disk is full would
end the process. Knows files and the values of prometheus_client, which `api.metrics` makes of it, and no metric.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import structlog
from prometheus_client import Metric, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

#: The folder of the data folder in which its processes keep their numbers.
FOLDER = "metrics"
#: Bytes of the files: enough for some thousand values of histograms, and some hundred of the others.
FILES = {"counter": 1 << 18, "histogram": 1 << 20, "gauge_livesum": 1 << 16, "gauge_livemax": 1 << 18}
#: The kinds that count on after the end of their process, and in whose name.
COUNTED, PAST = ("counter", "histogram"), "past"


class SharedNumbers(Collector):
    """The numbers of all processes over a folder; the metrics that this process makes from now on are kept there.

    One at a time in a process. Raises `OSError` if the folder can not be written or its disk is full.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
        self._folder = folder
        self._name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._files: dict[str, MmapedDict] = {}
        self._lock = threading.Lock()
        _fold_the_dead(folder)
        self._life = _locked(folder / f"{self._name}.lock")
        try:
            for kind in FILES:
                self._files[kind] = _made(folder, kind, self._name)
        except OSError:
            self.close()
            raise
        values.ValueClass = self._value

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all processes, each added up."""
        with _folding(self._folder, fcntl.LOCK_SH):
            living = {self._name, *_living(self._folder)}
            files = [
                str(file)
                for file in sorted(self._folder.glob("*.db"))
                if file.stat().st_size and (not file.name.startswith("gauge_") or _owner(file) in living)
            ]
            found: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return sorted(found, key=lambda metric: str(metric.name))

    def close(self) -> None:
        """Write no more; what was written counts on."""
        values.ValueClass = values.MutexValue
        with self._lock:
            for file in self._files.values():
                file.close()  # type: ignore[no-untyped-call]
            self._files.clear()
        self._life.close()

    def _value(self, *params: Any, **mode: Any) -> _Value:
        return _Value(self._files, self._lock, *params, **mode)


class _Value:
    """A number in a file: what prometheus_client makes its metrics of. After the end of the files it holds still."""

    _multiprocess = True

    def __init__(
        self,
        files: dict[str, MmapedDict],
        lock: threading.Lock,
        kind: str,
        metric: str,
        name: str,
        label_names: list[str],
        label_values: list[str],
        help_text: str,
        multiprocess_mode: str = "",
    ) -> None:
        self._files, self._lock = files, lock
        self._file = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
        self._key = mmap_key(metric, name, label_names, label_values, help_text)
        self._number = 0.0
        with lock:
            if (file := files.get(self._file)) is not None:
                self._number = file.read_value(self._key)[0]  # type: ignore[no-untyped-call]

    def inc(self, amount: float) -> None:
        with self._lock:
            self._write(self._number + amount)

    def set(self, value: float, timestamp: float | None = None) -> None:
        del timestamp
        with self._lock:
            self._write(value)

    def get(self) -> float:
        with self._lock:
            return self._number

    def set_exemplar(self, exemplar: object) -> None:
        """No exemplars are kept."""

    def get_exemplar(self) -> None:
        return None

    def _write(self, value: float) -> None:
        self._number = value
        if (file := self._files.get(self._file)) is not None:
            file.write_value(self._key, value, 0.0)  # type: ignore[no-untyped-call]


def forget_the_dead(data: Path) -> None:
    """Remove the numbers of processes that have ended: for the one that begins a new server on a data folder."""
    for file in _of_the_dead(data / FOLDER):
        file.unlink(missing_ok=True)


def _fold_the_dead(folder: Path) -> None:
    """Add what processes have counted that have ended to one file for all of them, so that there are never many."""
    with _folding(folder, fcntl.LOCK_EX):
        for file in _of_the_dead(folder):
            kind = file.name.partition("_")[0]
            if _owner(file) == PAST:
                continue
            if kind in COUNTED:
                past = _made(folder, kind, PAST)
                for key, value in _read(file):
                    past.write_value(key, past.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
                past.close()  # type: ignore[no-untyped-call]
            file.unlink(missing_ok=True)


def _read(file: Path) -> list[tuple[str, float]]:
    """Return the values of a process that has ended; none where its file is not whole, after a loss of power."""
    try:
        found = list(MmapedDict.read_all_values_from_file(str(file)))  # type: ignore[no-untyped-call]
        return [(key, value) for key, value, _, _ in found]
    except (RuntimeError, ValueError, struct.error):
        log.warning("numbers of a process that has ended are lost", file=file.name)
        return []


def _of_the_dead(folder: Path) -> list[Path]:
    """Return the files whose processes do not live: listed first, since a process locks before it makes the others."""
    files = [*folder.glob("*.db"), *folder.glob("*.lock")]
    living = set(_living(folder))
    return [file for file in files if _owner(file) not in living]


def _made(folder: Path, kind: str, owner: str) -> MmapedDict:
    """Open a file of values, made in its full size if it is not there."""
    file = folder / f"{kind}_{owner}.db"
    try:
        with file.open("ab") as stream:
            os.posix_fallocate(stream.fileno(), 0, FILES[kind])
    except OSError:
        if owner != PAST:
            file.unlink(missing_ok=True)
        raise
    return MmapedDict(str(file))  # type: ignore[no-untyped-call]


@contextmanager
def _folding(folder: Path, how: int) -> Iterator[None]:
    """Let nobody fold while others read."""
    with (folder / "folding").open("a") as stream:
        fcntl.flock(stream, how)
        yield


def _living(folder: Path) -> Iterable[str]:
    """Yield the names of the processes that hold their locks."""
    for file in folder.glob("*.lock"):
        try:
            with file.open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield file.stem
        except FileNotFoundError:
            continue


def _locked(file: Path) -> IO[str]:
    stream = file.open("a")
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def _owner(file: Path) -> str:
    return file.stem.rpartition("_")[2]
