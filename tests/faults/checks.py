"""What has to be true of a data folder when all work has ended: asked of the database's file and of the folders.

`check_rest` sweeps first, as the next worker would: a process that was killed can not clean up after itself.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ingest.sandbox import sweep_folders
from rag.settings import load_settings
from rag.store import open_store
from tests.faults.ledger import Book, User

#: Each of these finds rows that nothing should have left, and must find none.
ORPHANS: Mapping[str, str] = {
    "texts that no chunk needs": "SELECT id FROM texts WHERE id NOT IN (SELECT text_id FROM chunks WHERE text_id > 0)",
    "vectors without a text": "SELECT text_id FROM vectors WHERE text_id NOT IN (SELECT id FROM texts)",
    "texts without a vector": "SELECT id FROM texts WHERE id NOT IN (SELECT text_id FROM vectors)",
    "bands without a text": "SELECT text_id FROM bands WHERE text_id NOT IN (SELECT id FROM texts)",
    "parses that no version needs":
        "SELECT id FROM parses WHERE id NOT IN (SELECT parse_id FROM versions WHERE parse_id IS NOT NULL)",
    "chunks of no version": "SELECT seq FROM chunks WHERE version_id NOT IN (SELECT id FROM versions)",
    "versions of no document": "SELECT id FROM versions WHERE document_id NOT IN (SELECT id FROM documents)",
    "documents without a version": "SELECT id FROM documents WHERE id NOT IN (SELECT document_id FROM versions)",
    "files of no batch": "SELECT batch_id FROM batch_files WHERE batch_id NOT IN (SELECT id FROM batches)",
    "files of a batch without their version":
        "SELECT version_id FROM batch_files WHERE version_id NOT IN (SELECT id FROM versions)",
    "ready versions that are not searched":
        "SELECT id FROM versions WHERE state = 'ready' AND id NOT IN (SELECT live_version_id FROM documents "
        "WHERE live_version_id IS NOT NULL)",
    "searched versions that are not ready":
        "SELECT d.id FROM documents d JOIN versions v ON v.id = d.live_version_id WHERE v.state != 'ready'",
    "deleted documents that are searched":
        "SELECT id FROM documents WHERE deleted_at IS NOT NULL AND live_version_id IS NOT NULL",
    "documents with two ready versions":
        "SELECT document_id FROM versions WHERE state = 'ready' GROUP BY document_id HAVING count(*) > 1",
    "live chunks of versions that are not searched":
        "SELECT seq FROM chunks WHERE retired_commit IS NULL AND version_id NOT IN "
        "(SELECT live_version_id FROM documents WHERE live_version_id IS NOT NULL)",
    "chunks that are there twice":
        "SELECT id FROM chunks WHERE retired_commit IS NULL GROUP BY id HAVING count(*) > 1",
    "searched versions with other than their number of chunks":
        "SELECT v.id FROM versions v JOIN documents d ON d.live_version_id = v.id WHERE v.passages != "
        "(SELECT count(*) FROM chunks c WHERE c.version_id = v.id AND c.retired_commit IS NULL)",
    "leases that nobody needs": "SELECT id FROM versions WHERE lease_owner IS NOT NULL AND state != 'processing'",
    "members of a deleted document":
        "SELECT m.id FROM documents m JOIN documents p ON p.id = m.parent_id "
        "WHERE p.deleted_at IS NOT NULL AND m.deleted_at IS NULL",
    "collections that have lost count":
        "SELECT id FROM collections WHERE last_seq < (SELECT coalesce(max(seq), 0) FROM chunks "
        "WHERE collection_id = collections.id)",
}  # fmt: skip


def check_rest(data: Path, temporary: Path | None = None) -> None:
    """Check that nothing waits, and that nothing is there but what the documents need."""
    settings = load_settings(data=data)
    with open_store(settings) as store:
        assert store.catalog.queue_length() == 0
        store.sweep()
    check_rows(data)
    check_files(data)
    if temporary is not None:
        before, tempfile.tempdir = tempfile.tempdir, str(temporary)
        try:
            sweep_folders()
        finally:
            tempfile.tempdir = before
        assert [path.name for path in temporary.iterdir()] == []


def check_rows(data: Path) -> None:
    """Check the database: whole, and without a row that nothing needs."""
    connection = sqlite3.connect(data / "catalog.sqlite3")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        found = {what: connection.execute(sql).fetchall() for what, sql in ORPHANS.items()}
    finally:
        connection.close()
    assert {what: rows for what, rows in found.items() if rows} == {}


def check_files(data: Path) -> None:
    """Check the folders: each original is some version's, each sealed part is in force or the one before that."""
    connection = sqlite3.connect(data / "catalog.sqlite3")
    try:
        needed = {sha for (sha,) in connection.execute("SELECT sha256 FROM versions")}
        sealed = set(connection.execute("SELECT collection_id, folder FROM seals"))
        collections = {name for (name,) in connection.execute("SELECT id FROM collections")}
    finally:
        connection.close()
    originals = data / "originals"
    assert {path.name for path in originals.iterdir() if path.is_file()} <= {".lock"}
    assert {path.name for path in originals.glob("*/*")} == needed
    parts = [path for path in (data / "indexes").glob("*/*") if path.is_dir()]
    assert {path.parent.name for path in parts} <= collections
    assert [path.name for path in parts if path.name.startswith(".")] == []
    stray = [path for path in parts if (path.parent.name, path.name) not in sealed]
    kinds = Counter((path.parent.name, path.name.partition("-")[0]) for path in stray)
    assert {kind: count for kind, count in kinds.items() if count > 1} == {}, sorted(p.name for p in parts)
    assert {folder for _, folder in sealed} <= {path.name for path in parts}


def check_documents(data: Path, book: Book) -> None:
    """Check that every acknowledged document is there exactly once with its last content, and nothing else is."""
    connection = sqlite3.connect(data / "catalog.sqlite3")
    newest = (
        "SELECT d.name, v.state, v.sha256, v.error_code, v.passages, d.live_version_id = v.id FROM documents d "
        "JOIN versions v ON v.document_id = d.id WHERE d.collection_id = ? AND d.deleted_at IS NULL AND v.number = "
        "(SELECT max(number) FROM versions WHERE document_id = d.id)"
    )
    try:
        found = {row[0]: row[1:] for row in connection.execute(newest, (book.collection_id,))}
    finally:
        connection.close()
    assert set(found) == set(book.live)
    for name, file in book.live.items():
        state, sha256, error, passages, searched = found[name]
        assert sha256 == _sha256(file.data), name
        if file.error is not None:
            assert (state, error) == ("failed", file.error), name
        else:
            assert (state, bool(searched), error) == ("ready", True, None), (name, found[name])
            assert passages > 0 or file.inside, name


def check_searches(user: User) -> None:
    """Check by real searches that each document is found by its mark, and nothing that is gone by its own."""
    book = user.book
    for name, file in sorted(book.live.items()):
        if file.mark:
            assert user.finds(name, user.search(file.mark)), f"{name} is not found by its mark {file.mark}"
    for mark in sorted(book.gone):
        assert not [p for p in user.search(mark) if mark in " ".join(p["text"].split())], mark


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
