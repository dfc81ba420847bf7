"""A worker that is frozen (SIGSTOP: a suspended machine, a stalled disk) and comes back: its files are in other hands.

Frozen inside a writing transaction of SQLite it holds the one write lock, and nobody can help it: others wait, and say
that they do, until it goes on or dies. It is in there for some milliseconds of each file. On PostgreSQL the server ends
such a transaction after a while (`rag.database.SESSION`).
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from eval.corpus import generate
from ingest.worker import accept_file
from rag.settings import load_settings
from rag.store import open_store
from tests.faults.checks import check_documents, check_rest
from tests.faults.ledger import Book, file_of
from tests.faults.points import opened
from tests.faults.supervisor import kill, site, until
from tests.faults.test_stages import CASES, begin, checked, drain, found, zygote  # noqa: F401
from tests.processes import alive


def free(data):
    """Whether nobody holds SQLite's write lock."""
    connection = sqlite3.connect(data / "catalog.sqlite3", timeout=0.2, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    else:
        return True
    finally:
        connection.close()


def stands_still(pid):
    """Whether each thread of a process has stopped: they do so one after the other, and one may take a lock before."""
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def freeze(here, pid, stage):
    """Stop a worker that has files in hand, one of them at a stage, where it holds no lock."""
    end = time.monotonic() + 120
    while True:
        held = [at for (at,) in here.query("SELECT stage FROM versions WHERE lease_owner LIKE ?", f"%-{pid}-%")]
        if len(held) > 1 and stage in held:
            os.kill(pid, signal.SIGSTOP)
            until(lambda: stands_still(pid), "the worker stands still")
            if free(here.data):
                return len(held)
            os.kill(pid, signal.SIGCONT)
        assert time.monotonic() < end, "the worker never had two files in hand"
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["parse", "embed"])
def test_a_frozen_worker_loses_its_files_and_drops_them(tmp_path, stage):
    """Another worker does them once the leases have run out; the first one, thawed, adds nothing, and goes on."""
    entries = generate(tmp_path / "corpus", 36, 3, ("txt", "csv", "pdf"), oddities=False)
    book = Book("c", live={entry.name: file_of(tmp_path / "corpus", entry) for entry in entries})
    with site(tmp_path / "site", INGEST__EMBED_BATCH="4") as here:
        with open_store(load_settings(data=here.data)) as store:
            collection = store.catalog.create_collection("c")
            book.collection_id = collection.id
            for entry in entries[:-1]:
                accept_file(store, collection, entry.name, tmp_path / "corpus" / entry.name)
            first = here.start_worker()
            held = freeze(here, first, stage)
            here.start_worker()
            until(lambda: here.queued() == 0, "the other worker does all files")
            [(before,)] = here.query("SELECT count(*) FROM chunks")
            os.kill(first, signal.SIGCONT)
            accept_file(store, collection, entries[-1].name, tmp_path / "corpus" / entries[-1].name)
            until(lambda: here.queued() == 0, "the last file is done")
            until(lambda: not here.at_work(), "nobody has anything in hand")
        assert held > 1
        assert alive(first)
        here.stop()
        check_documents(here.data, book)
        [(chunks, last)] = here.query("SELECT count(*), max(seq) FROM chunks")
        assert chunks == last, "a number was given twice or got lost"
        assert chunks > before
        check_rest(here.data, here.temporary)


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_frozen_inside_a_transaction_it_holds_the_lock_and_loses_nothing(zygote, tmp_path, end):  # noqa: F811
    """Readers see the old state meanwhile. Thawed it commits; killed, its lock is gone and the file is done again."""
    old, new, acts, _ = CASES["work"]
    data = tmp_path / "data"
    begin(data, old, new, acts)
    arguments = ["work", str(data), str(tmp_path / "none"), "sql INSERT INTO chunks", "", int(signal.SIGSTOP)]
    pid = zygote.fork("tests.faults.points:die", arguments, tmp_path / "log")
    until(lambda: stands_still(pid), "the worker is frozen")
    assert not free(data)
    with opened(data) as citewell:
        assert [len(found(citewell, "oldmark")), len(found(citewell, "newmark"))] == [1, 0]
        if end == signal.SIGCONT:
            os.kill(pid, end)
            until(lambda: not alive(pid), "it has finished")
        else:
            kill(pid)
        drain(citewell)
        assert [len(found(citewell, "oldmark")), len(found(citewell, "newmark"))] == [0, 1]
        assert citewell.store.catalog.pulse(citewell.store.catalog.collection("c").id).last_seq == 2
    checked(data)
