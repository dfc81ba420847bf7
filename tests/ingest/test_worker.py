"""The ingest journey: what is accepted is searchable once, or named with the reason why not."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.leases import LeaseLost, Leases
from ingest.worker import accept, accept_file
from rag.assembly import open_citewell
from rag.catalog import Accepted, Retry
from rag.errors import BadInput, DocumentTooLarge, Unavailable
from rag.records import Stage, State
from rag.testing import WordEmbedder
from tests.reading import read_waiting, reading_worker


def searchable(citewell, collection: str, words: str) -> list[str]:
    return [p.document for p in citewell.search(citewell.plan(words, [collection])).passages if words in p.text]


@pytest.fixture
def collection(citewell):
    return citewell.store.catalog.create_collection("c")


def test_the_sample_documents_become_searchable(citewell, collection, sample_files):
    """Real files through the real parser, chunker and embedder: every one ready, with passages at their offsets."""
    catalog = citewell.store.catalog
    for path in sample_files:
        accept_file(citewell.store, collection, f"{path.parent.name}/{path.name}", path)
    read_waiting(citewell)
    documents = catalog.list_documents(collection.id)
    assert {d.newest.state for d in documents} == {State.READY}
    assert len(documents) == len(sample_files) == 10
    for document in documents:
        assert document.newest.passages > 0
        text = catalog.source_text(document.newest.id)
        assert all(text[e.start : e.end] == e.text for e in catalog.elements(document.newest.id))
    seqs = [row.seq for row in catalog.text_rows(collection.id, 0, 10**6)]
    for passage in catalog.passages(collection.id, seqs).values():
        assert catalog.source_text(passage.version_id)[passage.start : passage.end] == passage.text


def test_the_same_bytes_again_are_no_work(citewell, collection):
    worker = reading_worker(citewell)
    assert accept(citewell.store, collection, "a.txt", io.BytesIO(b"Storm."))[1] is Accepted.ADDED
    worker.drain()
    assert accept(citewell.store, collection, "a.txt", io.BytesIO(b"Storm."))[1] is Accepted.UNCHANGED
    assert worker.work_one() is None


def test_a_bad_file_fails_alone_and_says_why(citewell, collection):
    for name, content in (("bad.pdf", b"%PDF-1.7 but no more"), ("good.txt", b"Storm at sea."), ("empty.txt", b"")):
        accept(citewell.store, collection, name, io.BytesIO(content))
    read_waiting(citewell)
    found = {d.name: d.newest for d in citewell.store.catalog.list_documents(collection.id)}
    assert found["good.txt"].state is State.READY
    assert found["bad.pdf"].state is found["empty.txt"].state is State.FAILED
    assert found["bad.pdf"].stage is Stage.PARSE
    for version in (found["bad.pdf"], found["empty.txt"]):
        assert version.error
        assert "Traceback" not in version.error
    assert searchable(citewell, "c", "Storm") == ["good.txt"]


class BrokenEmbedder(WordEmbedder):
    """Has a bug that shows with one word."""

    def encode(self, texts, **options):
        if any("Storm" in text for text in texts):
            raise ZeroDivisionError("a secret of the code")
        return WordEmbedder.encode(self, texts, **options)


def test_a_bug_ends_one_file_and_not_the_worker(settings):
    """Whatever is thrown: the file is tried again, then has a final state, and those beside it are read."""
    quick = settings.ingest.model_copy(update={"attempts": 2, "retry_seconds": 0.01})
    with open_citewell(settings.model_copy(update={"ingest": quick}), embedder=BrokenEmbedder()) as citewell:
        catalog = citewell.store.catalog
        collection = catalog.create_collection("c")
        for name, content in (("a.txt", b"Storm."), ("b.txt", b"Tide."), ("c.txt", b"Ebb.")):
            accept(citewell.store, collection, name, io.BytesIO(content))
        drain_later(reading_worker(citewell), catalog)
        found = {d.name: d.newest for d in catalog.list_documents(collection.id)}
        assert [found[name].state for name in ("a.txt", "b.txt", "c.txt")] == [State.FAILED, State.READY, State.READY]
        assert (found["a.txt"].error_code, found["a.txt"].attempts) == ("internal", 2)
        assert "secret" not in found["a.txt"].error


def drain_later(worker, catalog):
    """Work until nothing waits, pauses between tries included."""
    deadline = time.monotonic() + 120
    while catalog.queue_length() and time.monotonic() < deadline:
        worker.drain()
        time.sleep(0.05)


def test_a_full_disk_is_no_fault_of_the_file(citewell, collection):
    """SQLite is given no more pages: the file keeps its place, and is read once there is room again."""
    text = "\n\n".join(f"# Part {n}\n\nThe storm number {n} came from the north." for n in range(200))
    accept(citewell.store, collection, "a.md", io.BytesIO(text.encode()))
    worker, database = reading_worker(citewell), citewell.store.catalog._database
    with database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"):
        worker.work_one()
    newest = citewell.store.catalog.list_documents(collection.id)[0].newest
    assert (newest.state, newest.attempts, newest.error) == (State.QUEUED, 0, None)
    with database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert worker.work_one().state is State.READY


def test_a_file_that_kills_its_workers_is_given_up_after_some_deaths(citewell, collection):
    """Between two tries the pause grows, so that other files come first."""
    catalog, rules = citewell.store.catalog, Retry(deaths=2, seconds=0.01)
    accept(citewell.store, collection, "a.txt", io.BytesIO(b"Storm."))
    for deaths in range(3):
        deadline = time.monotonic() + 60
        while (version := catalog.claim(f"dies{deaths}", 0.0, retry=rules)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (version.deaths, version.attempts) == (deaths, 1)
        time.sleep(0.01)
    assert catalog.claim("next", 60.0, retry=rules) is None
    version = catalog.version(version.id)
    assert (version.state, version.error_code) == (State.FAILED, "worker_died")
    assert "3 times" in version.error


def test_a_lost_lease_stops_the_work(citewell, collection):
    catalog = citewell.store.catalog
    accept(citewell.store, collection, "a.txt", io.BytesIO(b"Storm."))
    leases = Leases(catalog, "slow", 0.0, 60.0)
    lease = leases.add(catalog.claim("slow", 0.0))
    time.sleep(0.01)
    assert catalog.claim("fast", 60.0) is not None
    leases.beat()
    with pytest.raises(LeaseLost):
        lease.at(Stage.CHUNK)


def test_progress_runs_from_zero_to_one(citewell, collection):
    catalog = citewell.store.catalog
    version, _ = accept(citewell.store, collection, "a.txt", io.BytesIO(b"Storm."))
    leases, seen = Leases(catalog, "w", 60.0, 60.0), []
    lease = leases.add(catalog.claim("w", 60.0))
    for stage, share in ((Stage.PARSE, 0), (Stage.CHUNK, 0), (Stage.EMBED, 0), (Stage.EMBED, 0.5), (Stage.COMMIT, 0)):
        lease.at(stage, share)
        leases.beat()
        seen.append(catalog.version(version.id).progress)
    assert seen == [0.0, 0.25, 0.3, 0.625, 0.95]


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(citewell, collection):
    limits = citewell.store.settings.ingest.model_copy(update={"max_file_bytes": 10})
    citewell.store = type(citewell.store)(
        citewell.store.settings.model_copy(update={"ingest": limits}), citewell.store.catalog, citewell.store.originals
    )
    with pytest.raises(DocumentTooLarge, match="10 bytes"):
        accept(citewell.store, collection, "a.txt", io.BytesIO(b"x" * 11))
    assert list(citewell.store.originals.folder.rglob("*")) == []


def test_a_bad_name_is_refused(citewell, collection):
    with pytest.raises(BadInput):
        accept(citewell.store, collection, "\x00", io.BytesIO(b"x"))


def test_sealing_follows_growth(settings, embedder):
    """Once enough rows have come the worker seals both indexes, and the same passages are found."""
    rules = settings.index.model_copy(update={"seal_rows": 5})
    text = "\n\n".join(f"# Part {n}\n\nThe storm number {n} came from the north." for n in range(8))
    with open_citewell(settings.model_copy(update={"index": rules}), embedder=embedder) as citewell:
        collection = citewell.store.catalog.create_collection("c")
        accept(citewell.store, collection, "a.md", io.BytesIO(text.encode()))
        read_waiting(citewell)
        folders = sorted(p.name.rsplit("-", 1)[0] for p in citewell.store.index_folder.glob("*/*-*-*"))
        assert folders == ["dense-8", "lexical-8"]
        assert len(searchable(citewell, "c", "storm number")) == 8


KILLED = """
import sys, ingest.worker as w
from pathlib import Path
from rag.assembly import open_citewell
from rag.catalog import Catalog
from rag.settings import load_settings

def stop(*args, **kwargs):
    print("here", flush=True)
    sys.stdin.read()

def at(place):
    return {"parse": (w.Sandbox, "read"), "keep": (Catalog, "keep_parse"), "embed": (type(citewell.embedder), "encode"),
            "commit": (Catalog, "commit")}[place]

settings = load_settings(data=Path(sys.argv[1]), ingest={"lease_seconds": 1.0})
with open_citewell(settings) as citewell:
    setattr(*at(sys.argv[2]), stop)
    w.Worker(citewell).drain()
"""


@pytest.mark.parametrize("stage", ["parse", "keep", "embed", "commit"])
def test_a_worker_killed_at_any_stage_loses_nothing(citewell, collection, stage):
    """kill -9 in the middle: after its lease has run out another worker does the file again, and it is there once."""
    accept(citewell.store, collection, "a.txt", io.BytesIO(b"Storm at sea."))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(citewell.store.settings.data), stage],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    assert searchable(citewell, "c", "Storm") == []
    drain_later(reading_worker(citewell), citewell.store.catalog)
    version = citewell.store.catalog.list_documents(collection.id)[0].newest
    assert (version.state, version.attempts) == (State.READY, 1)
    assert searchable(citewell, "c", "Storm") == ["a.txt"]
    assert citewell.store.catalog.pulse(collection.id).last_seq == 1
