"""Work that was paid for is not paid again: parses and vectors are kept by content, through kills and new versions."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingest.worker import KEEP_ROWS, Worker, accept
from rag.assembly import Citewell, open_citewell
from rag.protocols import Encoding, Role
from rag.records import Collection, Document, State
from rag.settings import Settings
from rag.testing import WordEmbedder
from tests.reading import reading_worker


@dataclass(frozen=True, slots=True)
class CountingEmbedder(WordEmbedder):
    """Notes every passage that it embeds. Its first ``faults`` calls with a passage that says "faulty" go wrong."""

    texts: list[str] = field(default_factory=list)
    faults: list[None] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    #: Sets ``stop`` once so many passages were embedded.
    most: int = 10**9

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        if self.faults and any("faulty" in text for text in texts):
            self.faults.pop()
            raise RuntimeError("a fault of the model")
        if role == "passage":
            self.texts.extend(texts)
        if len(self.texts) >= self.most:
            self.stop.set()
        return WordEmbedder.encode(self, texts, role=role, tokens=tokens, codes=codes)

    def taken(self) -> list[str]:
        """Return what was embedded since the last call."""
        texts = list(self.texts)
        self.texts.clear()
        return texts


def quick(settings: Settings) -> Settings:
    """One parsing process, and short pauses; leases are long, so that a slow machine loses none by the way."""
    given = {"parsers": 1, "poll_seconds": 0.05, "retry_seconds": 0.05}
    return settings.model_copy(update={"ingest": settings.ingest.model_copy(update=given)})


@contextmanager
def opened(settings: Settings, embedder: CountingEmbedder) -> Iterator[tuple[Citewell, Collection, Worker]]:
    with open_citewell(quick(settings), embedder=embedder) as citewell:
        yield citewell, citewell.store.catalog.ensure_collection("c"), reading_worker(citewell)


def parts(count: int, **changed: str) -> bytes:
    """A document of ``count`` sections, each of which is one chunk."""
    said = {f"part{n}": f"Storm number {n} came from the north." for n in range(count)} | changed
    return "\n\n".join(f"# Part {n}\n\n{said[f'part{n}']}" for n in range(count)).encode()


def drained(worker: Worker) -> None:
    """Work until nothing waits, pauses and leases of the dead included."""
    catalog, deadline = worker.citewell.store.catalog, time.monotonic() + 60
    worker.drain()
    while catalog.queue_length() and time.monotonic() < deadline:
        time.sleep(0.05)
        worker.drain()


def put(citewell: Citewell, collection: Collection, name: str, content: bytes) -> None:
    accept(citewell.store, collection, name, io.BytesIO(content))


def only(citewell: Citewell, collection: Collection) -> Document:
    (document,) = citewell.store.catalog.list_documents(collection.id)
    return document


def test_only_what_is_new_is_parsed_and_embedded(settings):
    """A new version embeds its one new chunk, a copy under another name nothing, and the copy is not parsed either."""
    embedder = CountingEmbedder()
    with opened(settings, embedder) as (citewell, collection, worker):
        put(citewell, collection, "a.md", parts(20))
        worker.drain()
        assert len(embedder.taken()) == only(citewell, collection).newest.passages == 20
        put(citewell, collection, "a.md", parts(20, part7="A calm day in the south."))
        worker.drain()
        assert [text.split("\n")[-1] for text in embedder.taken()] == ["A calm day in the south."]
        parsed = worker.clock.seconds["parse"]
        put(citewell, collection, "b.md", parts(20, part7="A calm day in the south."))
        put(citewell, collection, "c.md", parts(20))
        worker.drain()
        assert worker.clock.seconds["parse"] == parsed
        assert embedder.taken() == []
        other = citewell.store.catalog.create_collection("other")
        put(citewell, other, "a.md", parts(20))
        worker.drain()
        assert worker.clock.seconds["parse"] == parsed
        assert len(embedder.taken()) == 20  # collections share no vectors: they may be deleted and purged alone
        found = citewell.store.catalog.list_documents(collection.id)
        assert [(d.name, d.newest.number, d.newest.passages) for d in found] == [
            ("a.md", 2, 20), ("b.md", 1, 20), ("c.md", 1, 20),
        ]  # fmt: skip


def test_equal_files_that_are_read_at_the_same_time_are_embedded_once(settings):
    embedder = CountingEmbedder()
    with opened(settings, embedder) as (citewell, collection, worker):
        for n in range(6):
            put(citewell, collection, f"{n}.md", parts(5))
        worker.drain()
        assert len(embedder.taken()) == 5
        assert {d.newest.passages for d in citewell.store.catalog.list_documents(collection.id)} == {5}


KILLED = """
import os, sys, time
from pathlib import Path
from ingest.worker import KEEP_ROWS, Worker
from rag.assembly import open_citewell
from rag.catalog import Catalog
from rag.settings import load_settings
from rag.testing import WordEmbedder

def here():
    os.write(1, b"here\\n")  # whole: another thread may come here too
    sys.stdin.read()

def kept():
    with citewell.store.catalog._read() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM vectors").scalar()

class Stopping(WordEmbedder):
    def encode(self, texts, **options):
        count.extend(texts)
        if sys.argv[2] == "embed" and len(count) > KEEP_ROWS + 100:
            while not kept():
                time.sleep(0.05)
            here()
        return WordEmbedder.encode(self, texts, **options)

count = []
settings = load_settings(data=Path(sys.argv[1]), ingest={"lease_seconds": 1.0, "parsers": 1})
with open_citewell(settings, embedder=Stopping()) as citewell:
    if sys.argv[2] == "commit":
        Catalog.commit = lambda *args, **kwargs: here()
    Worker(citewell).drain()
"""


def kill_at(place: str, folder: Path) -> None:
    """Work in another process until it is at ``place``, and kill it there."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), place],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)


def test_what_was_parsed_before_a_kill_is_not_parsed_again(settings):
    embedder = CountingEmbedder()
    with opened(settings, embedder) as (citewell, collection, worker):
        put(citewell, collection, "a.md", parts(5))
        kill_at("commit", settings.data)
        drained(worker)
        assert "parse" not in worker.clock.seconds
        assert len(embedder.taken()) == 5
        document = only(citewell, collection)
        assert (document.newest.state, document.newest.attempts) == (State.READY, 1)


def vectors_kept(citewell: Citewell) -> int:
    with citewell.store.catalog._read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM vectors").scalar() or 0)


def test_a_long_document_that_is_killed_while_it_is_embedded_goes_on_where_it_stopped(settings):
    embedder, count = CountingEmbedder(), KEEP_ROWS + 200
    with opened(settings, embedder) as (citewell, collection, worker):
        put(citewell, collection, "a.md", parts(count))
        kill_at("embed", settings.data)
        kept = vectors_kept(citewell)
        assert kept >= KEEP_ROWS
        drained(worker)
        assert len(embedder.taken()) == count - kept
        assert "parse" not in worker.clock.seconds
        assert only(citewell, collection).newest.passages == count == vectors_kept(citewell)


def test_a_worker_that_is_told_to_stop_keeps_what_it_has(settings):
    """The file goes back as if never taken, and the vectors that came of it are not made again."""
    embedder = CountingEmbedder(most=80)
    with opened(settings, embedder) as (citewell, collection, worker):
        put(citewell, collection, "a.md", parts(250))
        worker.run(embedder.stop)
        waits = only(citewell, collection).newest
        assert (waits.state, waits.attempts, waits.deaths) == (State.QUEUED, 0, 0)
        done = len(embedder.taken())
        assert 80 <= done == vectors_kept(citewell) < 250
        worker.drain()
        assert len(embedder.taken()) == 250 - done
        assert only(citewell, collection).newest.state is State.READY


def test_a_fault_that_passes_is_survived_and_one_that_stays_ends_the_file(settings):
    """Three attempts: two faults are one too few to fail, three are enough; others are not touched."""
    for faults, state, attempts in ((4, State.READY, 3), (6, State.FAILED, 3)):
        # Each try calls the model twice with the faulty passage: with others, and then by itself.
        embedder = CountingEmbedder(faults=[None] * faults)
        with opened(settings, embedder) as (citewell, collection, worker):
            put(citewell, collection, f"faulty{faults}.txt", f"This is faulty {faults}.".encode())
            drained(worker)
            newest = citewell.store.catalog.find_document(collection.id, f"faulty{faults}.txt").newest
            assert (newest.state, newest.attempts) == (state, attempts)
            assert (newest.error is None) == (state is State.READY)
            assert not embedder.faults


def test_a_refusal_ends_a_file_at_once(settings):
    with opened(settings, CountingEmbedder()) as (citewell, collection, worker):
        put(citewell, collection, "a.pdf", b"%PDF-1.7 but no more")
        worker.drain()
        newest = only(citewell, collection).newest
        assert (newest.state, newest.attempts, newest.not_before) == (State.FAILED, 1, None)
        assert newest.error_code == "document_damaged"
