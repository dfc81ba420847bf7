"""The ingest journey and the worker that walks it: owns the taking of work from the catalog's queue.

    original -> elements -> chunks -> vectors -> one commit

A file is leased to one worker at a time. A heartbeat thread prolongs the lease while the work goes on; a worker that
dies stops beating, and another takes its file after the lease has run out. Nothing is visible before the commit, and
the commit is refused to a worker that has lost its lease, so that every step may die and be done again.
Knows no HTTP and no file format.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import structlog

from ingest.chunk import chunk
from ingest.sandbox import Sandbox
from rag.assembly import Citewell
from rag.catalog import Accepted, Catalog
from rag.errors import CitewellError, Unavailable
from rag.originals import blocks_of
from rag.protocols import Embedder, Vectors
from rag.records import Chunk, Collection, ParsedDocument, Stage, State, Version
from rag.retrieval import Clock
from rag.store import Store

log = structlog.get_logger(__name__)

#: Where the stages lie on the way from 0 to 1, for progress bars.
PROGRESS = {Stage.PARSE: 0.0, Stage.CHUNK: 0.25, Stage.EMBED: 0.3, Stage.COMMIT: 0.95}


#: Seconds before the next try while the catalog does not answer.
TROUBLE_SECONDS = 5.0


class LeaseLost(Exception):
    """Another worker has this file now, or the document was deleted; this work is dropped."""


def accept(
    store: Store, collection: Collection, name: str, stream: BinaryIO, metadata: dict[str, Any] | None = None
) -> tuple[Version, Accepted]:
    """Take a file in: its bytes are on disk and its row is committed when this returns.

    Raises `BadInput` for a bad name or metadata, and `DocumentTooLarge`.
    """
    original = store.originals.store(blocks_of(stream), store.settings.ingest.max_file_bytes)
    return store.catalog.accept(collection.id, name, original.sha256, original.size, metadata)


def accept_file(
    store: Store, collection: Collection, name: str, path: Path, metadata: dict[str, Any] | None = None
) -> tuple[Version, Accepted]:
    """Take in the file at ``path``, see `accept`; raises `OSError` if it can not be read."""
    with path.open("rb") as stream:
        return accept(store, collection, name, stream, metadata)


def parse(sandbox: Sandbox, store: Store, version: Version) -> ParsedDocument:
    """Return what the original of ``version`` says. Raises what `Sandbox.parse` raises, and `NotFound`."""
    return sandbox.parse(store.originals.path(version.sha256), version.name)


@dataclass
class Lease:
    """A hold on one version, prolonged by `beating` until the work is done."""

    catalog: Catalog
    version_id: str
    owner: str
    seconds: float
    stage: Stage = Stage.PARSE
    progress: float = 0.0
    lost: bool = False

    def at(self, stage: Stage, share: float = 0.0) -> None:
        """Say which stage has begun and how much of it is done; raises `LeaseLost` if the work is not ours any more."""
        ends = [*PROGRESS.values(), 1.0]
        begin = PROGRESS[stage]
        self.progress = begin + share * (ends[ends.index(begin) + 1] - begin)
        self.stage = stage
        self.beat()
        if self.lost:
            raise LeaseLost(self.version_id)

    def beat(self) -> None:
        kept = self.catalog.heartbeat(self.version_id, self.owner, self.seconds, self.stage, self.progress)
        self.lost = self.lost or not kept

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Prolong the lease in a thread while the body runs."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(self.seconds / 3) and not self.lost:
                self.beat()

        thread = threading.Thread(target=run, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@dataclass
class Worker:
    """Takes versions from the queue, one at a time, until told to stop. ``clock`` adds up the seconds of each stage.

    Files are parsed in a child process, which ends with `run` and `drain`, and after `work_one` with this object.
    """

    citewell: Citewell
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
    clock: Clock = field(default_factory=Clock)
    sandbox: Sandbox = field(init=False)

    def __post_init__(self) -> None:
        self.sandbox = Sandbox(self.citewell.store.settings.ingest)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, looking for work every ``ingest.poll_seconds`` while there is none.

        While the catalog does not answer, say so in the log and try again; what was in hand comes back to the queue
        when its lease runs out.
        """
        poll = self.citewell.store.settings.ingest.poll_seconds
        with self.sandbox:
            while not stop.is_set():
                try:
                    if self.work_one() is None:
                        self.seal_where_due()
                        stop.wait(poll)
                except Unavailable as error:
                    log.error("the worker waits", reason=error.message, seconds=TROUBLE_SECONDS)
                    stop.wait(TROUBLE_SECONDS)

    def drain(self, only: Sequence[str] | None = None, done: Callable[[Version], None] | None = None) -> None:
        """Work until nothing waits, or none of the version ids in ``only``; tell ``done`` of each version."""
        with self.sandbox:
            while (version := self.work_one(only)) is not None:
                if done:
                    done(version)
        self.seal_where_due()

    def work_one(self, only: Sequence[str] | None = None) -> Version | None:
        """Take one version through the journey and return it as it stands then; None if nothing waits.

        Raises `Unavailable` if the catalog does not answer; that is no fault of the file, which will be tried again.
        """
        settings, catalog = self.citewell.store.settings.ingest, self.citewell.store.catalog
        version = catalog.claim(self.owner, settings.lease_seconds, only)
        if version is None:
            return None
        lease = Lease(catalog, version.id, self.owner, settings.lease_seconds)
        if version.attempts > settings.attempts:
            message = f"Reading this file ended the worker {settings.attempts} times; it is not tried again by itself."
            catalog.fail(version.id, self.owner, "worker_died", message)
            return self._told(catalog.version(version.id))
        try:
            with lease.beating():
                self._ingest(version, lease)
        except LeaseLost:
            log.warning("lease lost, work dropped", version=version.id)
        except Unavailable:
            raise
        except CitewellError as error:
            log.info("document refused", version=version.id, code=error.code, **error.facts)
            catalog.fail(version.id, self.owner, error.code, error.message)
        except Exception:
            # The outermost edge of the worker: whatever a parser or a model threw must not end the worker, nor be lost.
            log.exception("ingest failed", version=version.id, attempt=version.attempts)
            message = "Reading this file failed for a reason that is Citewell's own; the log of the worker has it."
            catalog.fail(version.id, self.owner, "internal", message)
        return self._told(catalog.version(version.id))

    def _told(self, version: Version) -> Version:
        facts = {"document": version.name, "version": version.number, "state": version.state.value}
        if version.state is State.FAILED:
            log.warning("document failed", **facts, error=version.error)
        else:
            log.info("document done", **facts, passages=version.passages)
        return version

    def _ingest(self, version: Version, lease: Lease) -> None:
        """The ingest journey of one version."""
        store, embedder = self.citewell.store, self.citewell.embedder
        lease.at(Stage.PARSE)
        with self.clock.stage("parse"):
            parsed = parse(self.sandbox, store, version)
        lease.at(Stage.CHUNK)
        with self.clock.stage("chunk"):
            chunks = chunk(parsed, embedder.window, embedder.count_tokens)
        with self.clock.stage("embed"):
            vectors = self._embed(chunks, embedder, lease)
        lease.at(Stage.COMMIT)
        with self.clock.stage("commit"):
            store.catalog.commit(version.id, self.owner, parsed, chunks, vectors, embedder.fingerprint)

    def _embed(self, chunks: Sequence[Chunk], embedder: Embedder, lease: Lease) -> Vectors:
        size = self.citewell.store.settings.ingest.embed_batch
        order = sorted(range(len(chunks)), key=lambda i: chunks[i].tokens)
        vectors = np.zeros((len(chunks), embedder.dimension), dtype=np.float32)
        for start in range(0, len(order), size):
            lease.at(Stage.EMBED, start / len(order))
            batch = order[start : start + size]
            vectors[batch] = embedder.encode([chunks[i].indexed_text for i in batch]).vectors
        return vectors

    def seal_where_due(self) -> None:
        """Seal the indexes of every collection that grew enough since the last time."""
        for collection in self.citewell.store.catalog.list_collections(counted=False):
            indexes = self.citewell.indexes_of(collection)
            for index in (indexes.dense, indexes.lexical):
                if index.wants_seal():
                    with self.clock.stage("seal"):
                        index.seal()
