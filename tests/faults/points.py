"""Processes that end themselves with SIGKILL at a chosen point of their work, to be forked by ``zygote``.

A point is what another process, or the next one, could see the trace of: before every statement and commit of the
database, every fsync, and every file or folder that is made, renamed or removed; the heartbeats of the leases are left
out, since their number depends on the time. Reading happens in this process: what the child process of the sandbox does
touches neither the database nor the data folder.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ingest.sandbox import Read, Reading
from ingest.worker import Worker
from ingest.worker import accept as take_in
from rag.assembly import Citewell, open_citewell
from rag.records import Block, Chunk, Kind, Member, ParsedDocument
from rag.settings import Settings, load_settings
from rag.testing import WordEmbedder

#: Leases end soon after a death, parts are sealed soon.
QUICK: dict[str, Any] = {
    "ingest": {"lease_seconds": 0.3, "retry_seconds": 0.01, "retry_most_seconds": 0.01, "parsers": 1},
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
    """Sends this process a signal at the n-th point, or the first that begins so, once.

    With ``write`` it writes all points to a file in place of that.
    """

    n: int | str
    write: Path | None = None
    number: int = signal.SIGKILL
    reached: int = 0
    armed: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def point(self, what: str) -> None:
        if not self.armed or threading.current_thread().name == "leases":
            return
        with self._lock:
            self.reached += 1
            if self.write is not None:
                line = f"{what}\n".encode()
                os.write(self._out, line)
            elif what.startswith(self.n) if isinstance(self.n, str) else self.reached == self.n:
                self.n = -1
                signal.pthread_kill(threading.get_ident(), self.number)  # this thread goes no further

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
            self.point(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
            fsync(descriptor)

        os.fsync = counted
        self.armed = True

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _WRITES:
            self.point(f"{event} {' '.join(str(argument) for argument in arguments[:2])}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT:
            self.point(f"make {arguments[0]}")


class InThisProcess:
    """Reads plain texts and archives, in the place of `ingest.sandbox.Sandbox`: at once, and without a process."""

    def read(self, path: Path, _: str, reading: Reading) -> Read:
        if zipfile.is_zipfile(path):
            assert reading.keep is not None
            with zipfile.ZipFile(path) as archive:
                kept = {name: reading.keep(io.BytesIO(archive.read(name))) for name in archive.namelist()}
            members = tuple(Member(name, original.sha256, original.size) for name, original in kept.items())
            document = ParsedDocument.from_blocks([], "application/zip", members=members)
        else:
            document = ParsedDocument.from_blocks([Block(Kind.TEXT, path.read_text())], "text/plain")
        chunks = (Chunk(e.text, "", e.start, e.end, e.kind, None, (), len(e.text.split())) for e in document.elements)
        return Read(document, tuple(chunks), {"parse": 0.0, "chunk": 0.0})

    def abort(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to end."""


class Here(Worker):
    """A worker that reads in this process."""

    @contextmanager
    def sandbox(self) -> Iterator[Any]:
        yield InThisProcess()


# -- what they do ----------------------------------------------------------------------------------------------------

NAME = "notes.txt"


def accept(citewell: Citewell, file: Path) -> None:
    """Take in a new version of the one document."""
    collection = citewell.store.catalog.collection("c")
    batch = citewell.store.catalog.open_batch(collection.id)
    take_in(citewell.store, collection, NAME, io.BytesIO(file.read_bytes()), batch=batch)


def work(citewell: Citewell, _: Path) -> None:
    """Work off the queue."""
    with Here(citewell) as worker:
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


def die(act: str, data: str, file: str, n: int | str, write: str = "", number: int = signal.SIGKILL) -> int:
    """Open a data folder and do ``act``, with signal ``number`` at the n-th point; return 0 if it comes to its end."""
    with opened(Path(data)) as citewell:
        citewell.store.catalog.list_collections()  # a connection is open
        countdown = Countdown(n, Path(write) if write else None, number)
        countdown.watch()
        ACTS[act](citewell, Path(file))
        countdown.armed = False
    return 0


def work_with_little_patience(data: str) -> int:
    """Be a worker for which a reader counts as stuck after a second."""
    import threading

    import ingest.worker
    from api.logs import configure_logging

    ingest.worker.SLOW_SECONDS = 1.0
    settings = load_settings(data=Path(data))
    configure_logging(settings, default="info")
    with open_citewell(settings) as citewell:
        ingest.worker.Worker(citewell).run(threading.Event())
    return 0
