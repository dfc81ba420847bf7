"""Purging: what is deleted is nowhere on the disk, all else is as before, and a purge that was killed is resumed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.worker import accept
from rag.assembly import Citewell, open_citewell
from rag.catalog import Purged
from rag.records import Collection, digest
from rag.settings import Settings
from rag.testing import WordEmbedder
from tests.contracts.strategies import chunks_of, parsed_of

#: Stands in no other text of the data folder.
MARKER = "zanzibarquartz"
SHARED = "The keeper of the harbour checks every buoy before the winter."


@pytest.fixture
def words(settings: Settings) -> Iterator[Citewell]:
    with open_citewell(settings, embedder=WordEmbedder()) as opened:
        yield opened


@pytest.fixture
def collection(words: Citewell) -> Collection:
    return words.store.catalog.create_collection("c")


def ingest(citewell: Citewell, collection: Collection, files: dict[str, str]) -> str:
    """Take files in as one batch, each paragraph a chunk; return the batch's id."""
    catalog, embedder = citewell.store.catalog, citewell.embedder
    batch = catalog.open_batch(collection.id)
    for name, text in files.items():
        version, _ = accept(citewell.store, collection, name, io.BytesIO(text.encode()), batch=batch)
        parsed = parsed_of(text.split("\n\n"))
        pieces = chunks_of(parsed)
        claimed = catalog.claim("w", 60)
        assert claimed is not None
        assert claimed.id == version.id
        assert catalog.keep_parse(version.id, "w", digest(version.sha256), parsed)
        vectors = embedder.encode([piece.indexed_text for piece in pieces]).vectors
        assert catalog.commit(version.id, "w", parsed, pieces, vectors, embedder.fingerprint)
    return batch


def delete(citewell: Citewell, collection: Collection, name: str) -> str:
    document = citewell.store.catalog.find_document(collection.id, name)
    citewell.store.catalog.delete_document(document.id)
    return document.id


def holding(folder: Path, data: bytes) -> list[str]:
    """The files under ``folder`` that hold these bytes."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and data in p.read_bytes())


def found(citewell: Citewell, question: str) -> list[str]:
    passages = citewell.search(citewell.plan(question, ["c"], top_k=20)).passages
    return sorted({p.document for p in passages if set(question.split()) & set(p.text.split())})


def many_texts(mark: str, count: int) -> str:
    """A document with long and short paragraphs, so that rows of many sizes move about in the database's pages."""
    return "\n\n".join(f"On day {n} {mark} lay in {'deep ' * (n * 7 % 90)}water." for n in range(count))


@pytest.mark.parametrize("sealed", [False, True], ids=["tail", "sealed"])
def test_a_purged_text_is_nowhere_in_the_data_folder(words, collection, sealed):
    """Text, vector and original are in no byte of any file; what stays is found as before."""
    folder = words.store.settings.data
    for round_ in range(3):  # rows of others come before and after it, and move its own about
        ingest(words, collection, {f"other{round_}.md": many_texts(f"coral{round_}", 40)})
        ingest(words, collection, {f"gone{round_}.md": many_texts(f"{MARKER}{round_}", 40)})
    if sealed:
        indexes = words.indexes_of(collection)
        indexes.dense.seal()
        indexes.lexical.seal()
    seqs, vectors = words.store.catalog.vector_rows(collection.id, words.embedder.fingerprint, 0, 10**6)
    documents = {s: p.document for s, p in words.store.catalog.passages(collection.id, seqs.tolist()).items()}
    gone = {v.astype("<f4").tobytes() for s, v in zip(seqs.tolist(), vectors, strict=True) if "gone" in documents[s]}
    kept = {v.astype("<f4").tobytes() for s, v in zip(seqs.tolist(), vectors, strict=True) if "other" in documents[s]}
    assert holding(folder, MARKER.encode())
    for round_ in range(3):
        delete(words, collection, f"gone{round_}.md")
    assert holding(folder, MARKER.encode())
    purged = words.purge(collection)
    assert (purged.documents, purged.versions, purged.files) == (3, 3, 3)
    assert holding(folder, MARKER.encode()) == []
    assert not [files for vector in gone - kept if (files := holding(folder, vector[8:200]))]
    assert found(words, "coral0") == ["other0.md"]
    assert found(words, f"{MARKER}0") == []


def test_counts_are_exact_and_what_is_shared_stays(words, collection):
    """Two documents with one text in common and one equal file: each count is what leaves, and no more."""
    both = ingest(words, collection, {"a.md": f"{SHARED}\n\nOnly {MARKER} is here.", "b.md": SHARED})
    ingest(words, collection, {"copy.md": SHARED})
    catalog, originals = words.store.catalog, words.store.originals
    shared = catalog.find_document(collection.id, "b.md").newest.sha256
    size = catalog.find_document(collection.id, "a.md").newest.size
    passages = catalog.find_document(collection.id, "a.md").newest.passages
    assert words.purge(collection) == Purged()
    delete(words, collection, "b.md")
    assert words.purge(collection) == Purged(documents=1, versions=1, passages=passages - 1)
    assert originals.has(shared)
    delete(words, collection, "a.md")
    purged = words.purge(collection)
    only_a = catalog.find_document(collection.id, "copy.md").newest.sha256
    assert only_a == shared
    assert purged == Purged(1, 1, passages, 1, 1, 1, purged.originals, files=1, bytes=size)
    assert len(purged.originals) == 1
    assert found(words, "keeper buoy") == ["copy.md"]
    assert holding(words.store.settings.data, MARKER.encode()) == []
    assert catalog.batch(both).states == {"purged": 2}
    assert [(f.name, f.version) for f in catalog.batch_files(both)] == [("(purged)", None)] * 2


def test_a_replaced_version_is_purged_and_the_one_in_force_stays(words, collection):
    ingest(words, collection, {"a.md": f"The {MARKER} was here.\n\nThe tide stays."})
    ingest(words, collection, {"a.md": "The pearl is here.\n\nThe tide stays."})
    assert found(words, MARKER) == []
    purged = words.purge(collection)
    assert (purged.documents, purged.versions, purged.files) == (0, 1, 1)
    assert holding(words.store.settings.data, MARKER.encode()) == []
    assert found(words, "tide") == found(words, "pearl") == ["a.md"]
    assert words.store.catalog.find_document(collection.id, "a.md").newest.number == 2


def test_some_documents_can_be_purged_alone(words, collection):
    """What else is deleted waits for its own purge; nothing that is searched is touched even when it is named."""
    ingest(words, collection, {f"{n}.md": f"The {MARKER}{n} lay there." for n in range(3)})
    first = delete(words, collection, "0.md")
    delete(words, collection, "1.md")
    alive = words.store.catalog.find_document(collection.id, "2.md").id
    assert words.purge(collection, [first, alive]).documents == 1
    folder = words.store.settings.data
    assert holding(folder, f"{MARKER}0".encode()) == []
    assert holding(folder, f"{MARKER}1".encode())
    assert found(words, f"{MARKER}2") == ["2.md"]


def test_a_purged_document_can_come_back(words, collection):
    ingest(words, collection, {"a.md": f"The {MARKER} lay there."})
    delete(words, collection, "a.md")
    words.purge(collection)
    assert found(words, MARKER) == []
    ingest(words, collection, {"a.md": f"The {MARKER} lay there."})
    assert found(words, MARKER) == ["a.md"]
    assert words.store.catalog.find_document(collection.id, "a.md").newest.number == 1


def test_a_reader_that_was_open_before_never_sees_a_purged_row(words, collection, settings):
    """One more Citewell on the same folder, with a snapshot from before, from a tail and from a sealed part."""
    ingest(words, collection, {"a.md": many_texts(MARKER, 10), "b.md": many_texts("coral", 10)})
    with open_citewell(settings, embedder=WordEmbedder()) as reader:
        assert found(reader, MARKER) == ["a.md"]
        indexes = words.indexes_of(collection)
        indexes.dense.seal()
        indexes.lexical.seal()
        with open_citewell(settings, embedder=WordEmbedder()) as late:
            assert found(late, MARKER) == ["a.md"]
            delete(words, collection, "a.md")
            words.purge(collection)
            for citewell in (reader, late, words):
                assert found(citewell, MARKER) == []
                assert found(citewell, "coral") == ["b.md"]


def test_a_purge_of_all_leaves_an_empty_collection_that_works(words, collection):
    ingest(words, collection, {"a.md": many_texts(MARKER, 5)})
    delete(words, collection, "a.md")
    words.purge(collection)
    assert found(words, MARKER) == []
    ingest(words, collection, {"b.md": "The coral lay there."})
    assert found(words, "coral") == ["b.md"]


def test_what_another_embedder_sealed_is_purged_too(words, collection, settings):
    """A part that was sealed under other settings is searched by nobody here, and holds the text all the same."""
    ingest(words, collection, {"a.md": f"The {MARKER} lay there.", "b.md": "The coral lay there."})
    indexes = words.indexes_of(collection)
    indexes.dense.seal()
    indexes.lexical.seal()
    _, vectors = words.store.catalog.vector_rows(collection.id, words.embedder.fingerprint, 0, 1)
    delete(words, collection, "a.md")
    with open_citewell(settings, embedder=WordEmbedder(dimension=32)) as other:
        other.purge(collection)
    folder = words.store.settings.data
    assert holding(folder, MARKER.encode()) == []
    assert holding(folder, vectors[0].astype("<f4").tobytes()[8:]) == []
    assert found(words, "coral") == ["b.md"]


KILLED = """
import os, sys
from pathlib import Path
from rag.assembly import Citewell, open_citewell
from rag.catalog import Catalog
from rag.lexical import LexicalIndex
from rag.settings import load_settings
from rag.store import Store
from rag.testing import WordEmbedder

def stop(*args, **kwargs):
    print("here", flush=True)
    sys.stdin.read()

where = {"files": (Store, "remove_originals"), "seal": (LexicalIndex, "seal_alone"), "rows": (Catalog, "forget_rows")}
with open_citewell(load_settings(data=Path(sys.argv[1])), embedder=WordEmbedder()) as citewell:
    setattr(*where[sys.argv[2]], stop)
    citewell.purge(citewell.store.catalog.collection("c"))
"""


@pytest.mark.parametrize("place", ["files", "seal", "rows"])
def test_a_purge_that_is_killed_is_completed_by_the_next(words, collection, place):
    """kill -9 after the rows are gone from the catalog: the next purge removes files, parts and numbers as well."""
    ingest(words, collection, {"a.md": many_texts(MARKER, 10), "b.md": many_texts("coral", 10)})
    indexes = words.indexes_of(collection)
    indexes.dense.seal()
    indexes.lexical.seal()
    delete(words, collection, "a.md")
    folder = words.store.settings.data
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), place],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    assert found(words, MARKER) == []
    words.purge(collection)
    assert holding(folder, MARKER.encode()) == []
    assert found(words, "coral") == ["b.md"]
    with words.store.catalog._read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM chunks WHERE version_id IS NULL").scalar() == 0
    assert len(words.store.originals.list()) == 1


def test_what_work_that_came_to_nothing_left_is_swept_and_gone(words, collection):
    """Texts and a parse that were kept for a document which was deleted before its commit."""
    catalog = words.store.catalog
    version, _ = accept(words.store, collection, "a.md", io.BytesIO(f"The {MARKER} lay there.".encode()))
    claimed = catalog.claim("w", 60)
    parsed = parsed_of([f"The {MARKER} lay there."])
    assert catalog.keep_parse(claimed.id, "w", "p" * 32, parsed)
    pieces = chunks_of(parsed)
    catalog.keep_vectors(collection.id, "words", pieces, words.embedder.encode([p.text for p in pieces]).vectors)
    catalog.delete_document(version.document_id)
    words.purge(collection)
    assert words.store.sweep() == 1  # the text; parse and original went with the version
    assert holding(words.store.settings.data, MARKER.encode()) == []
