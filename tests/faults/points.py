"""Processes that end themselves with SIGKILL at a chosen point of their work, to be forked by ``zygote``.

A point is what another process, or the next one, could see the trace of: before every statement and commit of the
database, every fsync, and every file or folder that is made, renamed or removed. Reading happens in this process: what
the child process of the sandbox does touches neither the database nor the data folder.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rag.assembly import Citewell, open_citewell
from rag.errors import Unavailable
from rag.settings import Settings, load_settings
from rag.testing import WordEmbedder

#: Leases end soon after a death, parts are sealed soon.
QUICK: dict[str, Any] = {
    "ingest": {"lease_seconds": 0.3, "retry_seconds": 0.01, "retry_most_seconds": 0.01, "poll_seconds": 0.02, "parsers": 1},
    "index": {"seal_rows": 1, "seal_share": 0.0},
}
_WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}


def quick_settings(data: Path) -> Settings:
    """Return the settings of these processes, and of who goes on after them."""
    return load_settings(data=data, **QUICK)


@contextmanager
def opened(data: Path) -> Iterator[Citewell]:
    """Open a data folder with an embedder that costs nothing."""
    with open_citewell(quick_settings(data), embedder=WordEmbedder()) as citewell:
        yield citewell


@dataclass
class Countdown:
    """Ends this process at the n-th point; with ``write`` it writes all points to a file in place of that."""

    n: int
    write: Path | None = None
    reached: int = 0
    armed: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def point(self, what: str) -> None:
        if not self.armed:
            return
        with self._lock:
            self.reached += 1
            if self.write is not None:
                line = f"{what}\n".encode()
                os.write(self._out, line)
            elif self.reached == self.n:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count from here on, in all threads."""
        if self.write is not None:
            self._out = os.open(self.write, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

        def before(_: Any, __: Any, statement: str, *___: Any) -> None:
            self.point(f"sql {' '.join(statement.split())[:100]}")

        sa.event.listen(sa.Engine, "before_cursor_execute", before)
        sa.event.listen(sa.Engine, "commit", lambda _: self.point("commit"))
        sys.addaudithook(self._audit)
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self.point(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")
            fsync(descriptor)

        os.fsync = counted
        self.armed = True

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _WRITES:
            self.point(f"{event} {' '.join(str(argument) for argument in arguments[:2])}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT:
            self.point(f"make {arguments[0]}")


class InThisProcess:
    """Reads as `ingest.sandbox.Sandbox` does, without walls and without a process."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.ingest

    def read(self, path: Path, name: str, reading: Any) -> Any:
        from ingest.chunk import chunk
        from ingest.draft import Draft
        from ingest.parse import parse
        from ingest.sandbox import Read, _kept
        from rag.tokens import open_counter

        with tempfile.TemporaryDirectory(dir=os.environ["CITEWELL_SPOOL"]) as spool:
            draft = Draft(self._limits, depth=reading.depth, spool=Path(spool))
            document = parse(path, name, self._limits, draft)
            members = tuple(
                member if member.error else _kept(member.name, Path(spool, str(number)), reading.keep)
                for number, member in enumerate(document.members)
            )
        from dataclasses import replace

        document = replace(document, members=members)
        pieces = chunk(document, reading.window, open_counter(reading.counter))
        return Read(document, tuple(pieces), {"parse": 0.0, "chunk": 0.0})

    def abort(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to end."""


def worker_of(citewell: Citewell) -> Any:
    """Return a worker that reads in this process."""
    from ingest.worker import Worker

    class Here(Worker):
        @contextmanager
        def sandbox(self) -> Iterator[Any]:
            yield InThisProcess(self.citewell.store.settings)

    return Here(citewell)


# -- what they do ----------------------------------------------------------------------------------------------------

NAME = "notes.txt"


def accept(citewell: Citewell, file: Path) -> None:
    """Take in a new version of the one document."""
    from ingest.worker import accept as take_in

    collection = citewell.store.catalog.collection("c")
    batch = citewell.store.catalog.open_batch(collection.id)
    take_in(citewell.store, collection, NAME, io.BytesIO(file.read_bytes()), batch=batch)


def work(citewell: Citewell, _: Path) -> None:
    """Work off the queue."""
    with worker_of(citewell) as worker:
        worker.drain()


def seal(citewell: Citewell, _: Path) -> None:
    """Seal both indexes."""
    indexes = citewell.indexes_of(citewell.store.catalog.collection("c"))
    indexes.dense.seal()
    indexes.lexical.seal()


def delete(citewell: Citewell, _: Path) -> None:
    """Delete the one document, and with it what was inside it."""
    catalog = citewell.store.catalog
    for document in catalog.list_documents(catalog.collection("c").id):
        if document.name == NAME:
            catalog.delete_document(document.id)


def purge(citewell: Citewell, _: Path) -> None:
    """Remove for good what is deleted or replaced."""
    citewell.purge(citewell.store.catalog.collection("c"))


def delete_collection(citewell: Citewell, _: Path) -> None:
    """Delete the whole collection."""
    citewell.store.delete_collection("c")


def sweep(citewell: Citewell, _: Path) -> None:
    """Sweep what others have left."""
    citewell.store.sweep()


ACTS: dict[str, Callable[[Citewell, Path], None]] = {
    act.__name__: act for act in (accept, work, seal, delete, purge, delete_collection, sweep)
}


def die(act: str, data: str, file: str, n: int, write: str = "") -> int:
    """Open a data folder and do ``act`` up to the n-th point; return 0 where it comes to its end before."""
    with opened(Path(data)) as citewell:
        citewell.store.catalog.list_collections()  # a connection is open
        if act == "work":
            from ingest.parse import parse  # noqa: F401 -- imports make no points
        countdown = Countdown(n, Path(write) if write else None)
        countdown.watch()
        ACTS[act](citewell, Path(file))
        countdown.armed = False
    return 0
