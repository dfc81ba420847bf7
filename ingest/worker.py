"""The ingest journey and the worker that walks it with many files at once.

    original -> elements -> chunks -> vectors -> one commit

Some threads claim files and have them read, each in a child process of its own (`ingest.sandbox`); the worker's own
thread embeds what they bring, in batches over all files in hand; one more thread commits. So the embedder never waits
while there is work. A file is leased to one worker at a time, and nothing is visible before the commit, which is
refused to a worker that has lost its lease: every step may die and be done again. What took long is kept at once (what
was parsed, and the vectors of long documents), so that the next try goes on from there. Knows no HTTP and no format.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self

import structlog

from ingest.chunk import chunk
from ingest.leases import Lease, LeaseLost, Leases
from ingest.ocr import engine
from ingest.parse import READERS
from ingest.pool import Batch, Order, Pool
from ingest.sandbox import Reading, Sandbox, sweep_folders
from rag.assembly import Citewell
from rag.catalog import Accepted, Retry
from rag.errors import CitewellError, NotFound, Unavailable
from rag.originals import Incoming, Original, blocks_of
from rag.protocols import Encoding
from rag.records import Collection, ParsedDocument, Stage, Version, digest
from rag.settings import IngestSettings
from rag.store import Store
from rag.telemetry import Clock, Running

log = structlog.get_logger(__name__)

#: Seconds before the next try while the catalog does not answer.
TROUBLE_SECONDS = 5.0
#: Batches that the embedder has at a time.
IN_FLIGHT = 2
#: Chunks that wait for the embedder or are in it before no more files are claimed, in batches; and most files in hand.
AHEAD, MOST_IN_HAND = 3, 64
#: What the time is called on the clock in which the embedder has nothing to do.
IDLE = "embed_idle"
#: Most files that are claimed in one transaction.
CLAIMED_AT_ONCE = 4
#: A long document's vectors are kept whenever so many of them have come.
KEEP_ROWS = 512
#: A reader that is busy with one file for so many seconds no longer counts, and another one is started.
SLOW_SECONDS = 20.0
#: Seconds without work after which the processes that read are ended, and seconds between two sweeps.
IDLE_SECONDS, SWEEP_SECONDS = 60.0, 3600.0
#: Seconds between two looks at whether an index should be sealed, while the work goes on.
SEAL_SECONDS = 15.0


def accept(
    store: Store,
    collection: Collection,
    name: str,
    stream: BinaryIO,
    metadata: dict[str, Any] | None = None,
    *,
    batch: str | None = None,
    source: str | None = None,
) -> tuple[Version, Accepted]:
    """Take a file in: its bytes are on disk and its row is committed when this returns, see `Catalog.accept`.

    Raises `BadInput` for a bad name or metadata, and `DocumentTooLarge`.
    """
    with store.originals.incoming(store.settings.ingest.max_file_bytes) as incoming:
        for block in blocks_of(stream):
            incoming.write(block)
        return take(store, collection, name, incoming, metadata, batch=batch, source=source)


def take(
    store: Store,
    collection: Collection,
    name: str,
    incoming: Incoming,
    metadata: dict[str, Any] | None = None,
    *,
    batch: str | None = None,
    source: str | None = None,
) -> tuple[Version, Accepted]:
    """Take in a file whose bytes have come, see `accept`."""
    incoming.flush()
    with store.originals.arriving():
        original = incoming.keep()
        return store.catalog.accept(
            collection.id, name, original.sha256, original.size, metadata, batch=batch, source=source
        )


def accept_file(
    store: Store,
    collection: Collection,
    name: str,
    path: Path,
    metadata: dict[str, Any] | None = None,
    *,
    batch: str | None = None,
    source: str | None = None,
) -> tuple[Version, Accepted]:
    """Take in the file at ``path``, see `accept`; raises `OSError` if it can not be read."""
    with path.open("rb") as stream:
        return accept(store, collection, name, stream, metadata, batch=batch, source=source)


@dataclass(eq=False)
class Job:
    """One version in hand: its lease, what was parsed of it, and the order for its vectors, which is worked on."""

    lease: Lease
    parsed: ParsedDocument
    order: Order
    embedding: Running | None = None

    @property
    def version(self) -> Version:
        return self.lease.version


@dataclass
class Worker:
    """Takes versions from the queue until told to stop. ``clock`` adds up the seconds of each stage.

    ``embed_idle`` on the clock is the time in which the embedder waited though a file was in hand. The child processes
    that read files end with the ``with`` block of this object, or with this object. One thread at a time may use it.
    ``sandboxes`` are those that wait: they may come from a worker before this one, if the limits are the same.
    """

    citewell: Citewell
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
    clock: Clock = field(init=False)
    sandboxes: list[Sandbox] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock("ingest", self.citewell.telemetry)

    @property
    def limits(self) -> IngestSettings:
        return self.citewell.store.settings.ingest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes; the worker may be used again."""
        while self.sandboxes:
            self.sandboxes.pop().close()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, looking for work every ``ingest.poll_seconds`` while there is none.

        What is in hand then goes back to the queue. While the catalog does not answer or the disk is full, say so in
        the log and try again; what was in hand goes back to the queue as soon as that can be written.
        """
        swept_at, worked_at, troubled = -math.inf, time.monotonic(), False
        with self:
            while not stop.is_set():
                try:
                    if troubled:  # before its leases run out, which would count as a death
                        self.citewell.store.catalog.release(self.owner)
                        troubled = False
                    if time.monotonic() - swept_at > SWEEP_SECONDS:
                        self._sweep()
                        swept_at = time.monotonic()
                    if _Shift(self, stop=stop).work():
                        worked_at = time.monotonic()
                    else:
                        self.seal_where_due()
                        stop.wait(self.limits.poll_seconds)
                    if time.monotonic() - worked_at > IDLE_SECONDS:
                        self.close()
                except Unavailable as error:
                    troubled = True
                    log.error("the worker waits", reason=error.message, seconds=TROUBLE_SECONDS)
                    stop.wait(TROUBLE_SECONDS)

    def drain(self, batch: str | None = None, done: Callable[[Version], None] | None = None) -> None:
        """Work until nothing waits, or nothing of a batch; tell ``done`` of each version, one after the other.

        What waits for another try later, or is in the hands of another worker, is left. When interrupted, what is in
        hand goes back to the queue. Raises `Unavailable` if the catalog does not answer.
        """
        while _Shift(self, batch=batch, done=done).work():
            pass
        self.seal_where_due()

    def work_one(self) -> Version | None:
        """Take one version through the journey and return it as it stands then; None if nothing waits."""
        worked: list[Version] = []
        _Shift(self, most=1, done=worked.append).work()
        return worked[0] if worked else None

    def seal_where_due(self) -> None:
        """Seal the indexes of every collection that grew enough since the last time."""
        for collection in self.citewell.store.catalog.list_collections(counted=False):
            indexes = self.citewell.indexes_of(collection)
            for index in (indexes.dense, indexes.lexical):
                with suppress(NotFound):  # it was deleted meanwhile
                    if index.wants_seal():
                        with self.clock.stage("seal"):
                            index.seal()

    @contextmanager
    def sandbox(self) -> Iterator[Sandbox]:
        """Lend a child process that waits for a document, or a new one."""
        try:
            sandbox = self.sandboxes.pop()
        except IndexError:
            sandbox = Sandbox(self.limits)
        try:
            yield sandbox
        finally:
            self.sandboxes.append(sandbox)

    def _sweep(self) -> None:
        swept = sweep_folders() + self.citewell.store.sweep()
        if swept:
            log.info("swept what dead workers had left", things=swept)


class _Shift:
    """One stretch of work: from the first claim to the moment when nothing is in hand and nothing waits.

    The threads that read claim files by themselves. `work` embeds, in the thread that calls it.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        stop: threading.Event | None = None,
        batch: str | None = None,
        most: int | None = None,
        done: Callable[[Version], None] | None = None,
    ) -> None:
        self._worker, self._limits = worker, worker.limits
        self._citewell, self._catalog = worker.citewell, worker.citewell.store.catalog
        self._telemetry = worker.citewell.telemetry
        self._stop, self._batch, self._left, self._done = stop or threading.Event(), batch, most, done
        self._retry = Retry(
            self._limits.attempts, self._limits.deaths, self._limits.retry_seconds, self._limits.retry_most_seconds
        )
        self._leases = Leases(self._catalog, worker.owner, self._limits.lease_seconds, self._limits.stall_seconds)
        self._pool, self._size = Pool(), self._limits.embed_batch or worker.citewell.embedder.batch
        self._committer = ThreadPoolExecutor(1, "commit")
        self._sealer: threading.Thread | None = None
        self._sealed_at = time.monotonic()
        self._reading_mode = reading_mode(self._limits)
        self._telling = threading.Lock()
        self._changed = threading.Condition()  # of all that follows
        self._jobs: dict[Order, Job] = {}
        self._readers: dict[threading.Thread, tuple[float, Sandbox] | None] = {}
        self._claimed = 0
        self._waiting: deque[Lease] = deque()
        self._claiming = threading.Lock()
        self._dry = self._halt = False
        self._trouble: BaseException | None = None

    # -- the whole ---------------------------------------------------------------------------------------------------

    def work(self) -> int:
        """Work until nothing waits; return how many files were claimed. Raises what the catalog's trouble raised."""
        with self._leases.beating():
            try:
                self._add_reader()
                self._embed_all()
            finally:
                self._end()
        if self._trouble is not None:
            raise self._trouble
        return self._claimed

    def _embed_all(self) -> None:
        """Keep the embedder busy: while it has one batch, the next is made ready and the last is handed out."""
        with ThreadPoolExecutor(IN_FLIGHT, "embed") as embedders:
            flying: deque[tuple[Batch, Future[Encoding]]] = deque()
            since, busy = time.perf_counter(), False
            while True:
                while not self._over() and len(flying) < IN_FLIGHT and (batch := self._pool.take(self._size)).texts:
                    flying.append((batch, embedders.submit(self._encoded, batch)))
                if busy != bool(flying):
                    self._worker.clock.add("embed" if busy else IDLE, time.perf_counter() - since, told=False)
                    since, busy = time.perf_counter(), not busy
                if flying:
                    self._land(*flying.popleft())
                elif self._over():
                    return
                else:
                    with self._changed:
                        if self._finished():
                            return
                        self._changed.wait(0.2)
                self._look_around()

    def _over(self) -> bool:
        return self._halt or self._stop.is_set()

    def _finished(self) -> bool:
        return (self._dry or self._left == 0) and not self._leases and not any(self._readers.values())

    def _end(self) -> None:
        """Stop reading, wait for commits that have begun, and give back what is not done."""
        with self._changed:
            self._halt = True
            busy = [at[1] for at in self._readers.values() if at]
            threads = list(self._readers)
            self._changed.notify_all()
        for sandbox in busy:
            sandbox.abort()
        for thread in threads:
            thread.join()
        for job in list(self._jobs.values()):
            if job.order.missing:
                self._committer.submit(self._keep_vectors, job)
        self._committer.shutdown()
        if self._sealer is not None:
            self._sealer.join()
        held = self._leases.held()
        left = [lease.version.id for lease in held]
        for lease in held:
            lease.span.end("given back")
        try:
            self._catalog.release(self._worker.owner, left)
        except Unavailable as error:  # their leases run out
            log.error("files can not be given back", reason=error.message, files=len(left))

    def _look_around(self) -> None:
        """Start another reader where one is due, and a sealing."""
        with self._changed:
            more = not self._dry and self._left is None and len(self._readers) < self._wanted_readers()
        if more:
            self._add_reader()
        now = time.monotonic()
        if now - self._sealed_at > SEAL_SECONDS and (self._sealer is None or not self._sealer.is_alive()):
            self._sealed_at = now
            self._sealer = threading.Thread(target=self._guarded, args=(self._seal,), name="seal")
            self._sealer.start()

    def _seal(self) -> None:
        """Seal what is due; what can not be sealed now is not waited for."""
        try:
            self._worker.seal_where_due()
        except Unavailable as error:
            log.error("an index is not sealed", reason=error.message)

    def _wanted_readers(self) -> int:
        """How many readers there should be: those that are stuck with one file for long do not count."""
        now, usual = time.monotonic(), parsers(self._limits)
        stuck = sum(1 for at in self._readers.values() if at and now - at[0] > SLOW_SECONDS)
        return usual + min(stuck, 2 * usual)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Run what may end the shift, and end it where the catalog does not answer or Citewell has a fault."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001 -- of a thread: `work` raises it again
            with self._changed:
                self._trouble = self._trouble or error
                self._halt = True
                self._changed.notify_all()

    # -- reading: in threads of their own ----------------------------------------------------------------------------

    def _add_reader(self) -> None:
        thread = threading.Thread(target=self._guarded, args=(self._read_all,), name="read", daemon=True)
        with self._changed:
            self._readers[thread] = None
        thread.start()

    def _read_all(self) -> None:
        me = threading.current_thread()
        try:
            with self._worker.sandbox() as sandbox:
                while (lease := self._next(me, sandbox)) is not None:
                    with self._settled(lease):
                        self._add(self._read(lease, sandbox))
                    with self._changed:
                        self._readers[me] = None
                        self._changed.notify_all()
        finally:
            with self._changed:
                self._readers.pop(me, None)
                self._changed.notify_all()

    def _next(self, me: threading.Thread, sandbox: Sandbox) -> Lease | None:
        """Claim a file as soon as there is room for one and one waits; None at the end of the shift."""
        while True:
            with self._changed:
                while not self._over() and not self._has_room():
                    self._changed.wait(0.2)
                if self._over() or self._finished() or len(self._readers) > self._wanted_readers():
                    return None
                may = bool(self._waiting) or self._left is None or self._left > 0
                if may:
                    self._readers[me] = (time.monotonic(), sandbox)
            if may and (lease := self._claimed_by(me)) is not None:
                return lease
            with self._changed:
                self._changed.wait(self._limits.poll_seconds)

    def _has_room(self) -> bool:
        return len(self._pool) < AHEAD * self._size and len(self._leases) < MOST_IN_HAND

    def _claimed_by(self, me: threading.Thread) -> Lease | None:
        """Take a file that is claimed already, or claim some: each for whichever reader comes first."""
        with self._claiming:
            if not self._waiting:
                self._claim()
            with self._changed:
                if self._waiting:
                    return self._waiting.popleft()
                self._readers[me] = None
                self._changed.notify_all()
                return None

    def _claim(self) -> None:
        owner, seconds = self._worker.owner, self._limits.lease_seconds
        most = CLAIMED_AT_ONCE if self._left is None else min(CLAIMED_AT_ONCE, self._left)
        found = self._catalog.claim_some(owner, seconds, most, batch=self._batch, retry=self._retry) if most else []
        with self._changed:
            self._dry = not found
            self._left = None if self._left is None else self._left - len(found)
            self._claimed += len(found)
            self._waiting.extend(map(self._leased, found))

    def _leased(self, version: Version) -> Lease:
        lease = self._leases.add(version)
        lease.span = self._telemetry.begin(
            "ingest",
            document_id=version.document_id,
            version_id=version.id,
            attempt=version.attempts,
            bytes=version.size,
        )
        return lease

    def _read(self, lease: Lease, sandbox: Sandbox) -> Job:
        """Elements and chunks of a version, from what was kept of an earlier try if that is there."""
        version, embedder, clock = lease.version, self._citewell.embedder, self._worker.clock
        lease.at(Stage.PARSE)
        depth = self._catalog.depth(version.document_id)
        parse_id = parse_key(version, depth, self._reading_mode)
        parsed = self._kept(parse_id)
        if parsed is not None:
            lease.at(Stage.CHUNK)
            with clock.stage("chunk", lease.span.place):
                chunks = tuple(chunk(parsed, embedder.window, embedder.count_tokens))
        else:
            reading = Reading(
                embedder.counter, embedder.window, depth, self._keep, lambda share: lease.at(Stage.PARSE, share)
            )
            with self._telemetry.span("ingest read", lease.span.place) as span:
                read = sandbox.read(self._citewell.store.originals.path(version.sha256), version.name, reading)
                parsed, chunks = read.document, read.chunks
                behind = sum(read.seconds.values())
                for stage, seconds in read.seconds.items():  # the child measured them, one after the other
                    clock.add(stage, seconds)
                    self._telemetry.begin(f"ingest {stage}", span.place, ago=behind).end(ago=behind - seconds)
                    behind -= seconds
        lease.at(Stage.CHUNK, 0.9)
        with clock.stage("keep", lease.span.place):
            if not self._catalog.keep_parse(version.id, self._worker.owner, parse_id, parsed):
                raise LeaseLost(version.id)
            digests = [piece.digest for piece in chunks]
            known = self._catalog.known_vectors(version.collection_id, embedder.fingerprint, digests)
        return Job(lease, parsed, Order.of(chunks, known, embedder.dimension))

    def _kept(self, parse_id: str) -> ParsedDocument | None:
        """Return what was parsed before, if all that was found inside is still there too."""
        parsed = self._catalog.parsed(parse_id)
        return parsed if parsed is not None and self._has_all(parsed) else None

    def _has_all(self, parsed: ParsedDocument) -> bool:
        originals = self._citewell.store.originals
        return all(member.error or originals.has(member.sha256) for member in parsed.members)

    def _keep(self, stream: BinaryIO) -> Original:
        return self._citewell.store.originals.store(blocks_of(stream), self._limits.max_file_bytes)

    # -- embedding and committing ------------------------------------------------------------------------------------

    def _add(self, job: Job) -> None:
        """Put a file that was read in line for the embedder, or for the commit if nothing of it is new."""
        with self._changed:
            if self._halt:
                return
            self._jobs[job.order] = job
            job.embedding = self._worker.clock.begin("embed", job.lease.span.place)
            complete = self._pool.add(job.order)
            self._changed.notify_all()
        if complete:
            self._submit(job)

    def _encoded(self, batch: Batch) -> Encoding:
        self._telemetry.meters.embedded("passage", len(batch.texts))
        with self._leases.step("embed"):
            return self._citewell.embedder.encode(batch.texts, codes=True)

    def _land(self, batch: Batch, encoded: Future[Encoding]) -> None:
        """Wait for the vectors of a batch and hand them out."""
        try:
            encoding = encoded.result()
        except CitewellError:
            raise
        except Exception:  # noqa: BLE001 -- one of the documents may be at fault: the others shall not suffer
            self._embed_apart(batch)
        else:
            self._brought(self._pool.bring(batch, encoding))

    def _embed_apart(self, batch: Batch) -> None:
        """Embed what a batch holds of each document by itself, so that what goes wrong is one document's."""
        for order, part in batch.apart():
            job = self._jobs.get(order)
            if job is None or not order.missing:  # it got all from the parts before
                continue
            with self._settled(job.lease):
                self._brought(self._pool.bring(part, self._encoded(part)))
            if job.lease not in self._leases.held():
                self._forget(job)
        self._pool.give_back(batch)

    def _brought(self, complete: list[Order]) -> None:
        """Send complete files to the commit, and keep what has come of long ones."""
        for order in complete:
            self._submit(self._jobs[order])
        for job in list(self._jobs.values()):
            if job.lease.lost:
                self._forget(job)
            elif job.order.missing:
                job.lease.show(Stage.EMBED, job.order.done)
                if len(job.order.fresh) >= KEEP_ROWS:
                    self._committer.submit(self._keep_vectors, job)
        with self._changed:
            self._changed.notify_all()

    def _keep_vectors(self, job: Job) -> None:
        rows = job.order.take_fresh()
        if not rows or job.lease.lost:
            return
        pieces = [job.order.chunks[row] for row in rows]
        codes = [job.order.codes[row] for row in rows]
        into = job.version.collection_id, self._citewell.embedder.fingerprint
        with self._worker.clock.stage("keep", job.lease.span.place):
            self._guarded(lambda: self._catalog.keep_vectors(*into, pieces, job.order.vectors[rows], codes))

    def _submit(self, job: Job) -> None:
        if job.embedding is not None:
            job.embedding.end()
        self._committer.submit(self._guarded, lambda: self._commit(job))

    def _commit(self, job: Job) -> None:
        version, embedder = job.version, self._citewell.embedder.fingerprint
        with self._settled(job.lease):
            job.lease.at(Stage.COMMIT)
            with (
                self._worker.clock.stage("commit", job.lease.span.place),
                self._leases.step("commit"),
                self._citewell.store.originals.arriving(),
            ):
                if not self._has_all(job.parsed):
                    raise LeaseLost(version.id)  # what was inside was purged this very moment: it is read again
                committed = self._catalog.commit(
                    version.id, self._worker.owner, job.parsed, job.order.chunks, job.order.vectors, embedder,
                    codes=job.order.codes, most_members=self._limits.archive_members,
                )  # fmt: skip
            if committed and not self._done:  # nobody wants to see what the catalog has made of it
                self._telemetry.meters.ingested("ready", len(job.order.chunks))
                log.info("document done", **_facts(version), state="ready", passages=len(job.order.chunks))
            else:
                self._tell(version.id)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._pool.drop(job.order)
            self._jobs.pop(job.order, None)
            self._leases.let_go(job.lease)
            self._dry = self._dry and not job.parsed.members  # what was inside waits now
            self._changed.notify_all()

    # -- how the work on a file ends ---------------------------------------------------------------------------------

    @contextmanager
    def _settled(self, lease: Lease) -> Iterator[None]:
        """Note what ends the work on a version, if anything in the body does."""
        try:
            yield
        except Unavailable:
            raise
        except LeaseLost:
            log.warning("lease lost, work dropped", **_facts(lease.version))
        except Exception as error:  # noqa: BLE001
            # The outermost edge: whatever a parser or a model threw must not end the worker, nor be lost.
            if self._halt:  # the child was ended under its hands: the file is given back
                return
            lease.span.end(type(error).__name__)
            self._note(lease.version, error)
        else:
            return
        self._leases.let_go(lease)
        self._tell(lease.version.id)

    def _note(self, version: Version, error: Exception) -> None:
        """Put a version whose work went wrong back into the queue, or end it."""
        facts = _facts(version) | {"attempt": version.attempts}
        if not isinstance(error, CitewellError):
            log.error("ingest failed", exc_info=error, **facts)
            message = "Reading this file failed for a reason that is Citewell's own; the log of the worker has it."
            self._catalog.defer(version.id, self._worker.owner, "internal", message, self._retry)
        elif error.transient:
            self._catalog.defer(version.id, self._worker.owner, error.code, error.message, self._retry)
        else:
            log.info("document refused", code=error.code, **facts, **error.facts)
            self._catalog.fail(version.id, self._worker.owner, error.code, error.message)

    def _tell(self, version_id: str) -> None:
        found = self._catalog.versions([version_id])
        if not found:  # its collection was deleted meanwhile
            return
        version = found[0]
        self._telemetry.meters.ingested(version.state.value, version.passages)
        if version.error:
            log.warning("document failed", **_facts(version), state=version.state.value, error=version.error)
        else:
            log.info("document done", **_facts(version), state=version.state.value, passages=version.passages)
        if self._done:
            with self._telling:
                self._done(version)


def _facts(version: Version) -> dict[str, Any]:
    """What names a version in the log."""
    return {"document": version.name, "version": version.number}


def parsers(limits: IngestSettings) -> int:
    """Return how many files are read at once."""
    return limits.parsers or min(8, max(2, os.cpu_count() or 2))


def reading_mode(limits: IngestSettings) -> tuple[str, ...]:
    """Return what of the settings and of this machine decides how files are read."""
    return READERS, engine(limits) or "none", limits.ocr_languages, str(limits.ocr_dpi)


def parse_key(version: Version, depth: int, mode: tuple[str, ...]) -> str:
    """Return the id under which what is read of a version is kept: equal for all that is read alike."""
    return digest(version.sha256, PurePosixPath(version.name).suffix.lower(), str(depth), *mode)
