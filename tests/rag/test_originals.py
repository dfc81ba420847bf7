"""Originals: kept once by content, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ingest.worker import accept
from rag.errors import DocumentTooLarge, NotFound, Unavailable
from rag.originals import Original, Originals
from rag.store import open_store


@pytest.fixture
def originals(tmp_path):
    return Originals(tmp_path / "originals")


def files(originals: Originals) -> list[str]:
    return sorted(path.name for path in originals.folder.rglob("*") if path.is_file())


def test_bytes_come_back_by_their_digest(originals):
    stored = originals.store([b"storm ", b"at sea"], 100)
    assert stored.sha256 == hashlib.sha256(b"storm at sea").hexdigest()
    assert stored.size == 12
    assert originals.path(stored.sha256).read_bytes() == b"storm at sea"


def test_the_same_bytes_are_kept_once(originals):
    assert originals.store([b"x"], 10) == originals.store([b"x"], 10)
    assert len(files(originals)) == 1


def test_too_many_bytes_leave_nothing_behind(originals):
    with pytest.raises(DocumentTooLarge):
        originals.store([b"12345", b"67890", b"1"], 10)
    assert files(originals) == []


def test_a_reader_that_breaks_off_leaves_nothing_behind(originals):
    def broken():
        yield b"half"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        originals.store(broken(), 100)
    assert files(originals) == []


def test_what_is_not_there_is_named(originals):
    with pytest.raises(NotFound, match="upload it again"):
        originals.path("ab" * 32)
    originals.remove("ab" * 32)
    stored = originals.store([b"x"], 10)
    originals.remove(stored.sha256)
    assert files(originals) == []


def test_many_threads_store_the_same_bytes_as_one_file(originals):
    """Each gets the same answer, also while half-written files of dead processes are swept."""
    blocks, over = [b"storm " * 1000] * 3, threading.Event()

    def sweep() -> None:
        while not over.is_set():
            originals.sweep_incoming()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: originals.store(blocks, 10**6), range(60)))
    over.set()
    sweeper.join()
    assert set(stored) == {Original(hashlib.sha256(b"".join(blocks)).hexdigest(), 18_000)}
    assert files(originals) == [stored[0].sha256]


GROWS = """
import sys
from pathlib import Path
from rag.originals import Originals

with Originals(Path(sys.argv[1])).incoming(10**6) as incoming:
    incoming.write(b"half")
    incoming.flush()
    print("here", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_half_written_is_swept_and_what_still_grows_is_not(originals):
    growing = originals.incoming(100)
    growing.write(b"storm")
    process = subprocess.Popen(
        [sys.executable, "-c", GROWS, str(originals.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"here\n"
        assert originals.sweep_incoming() == 0
        process.send_signal(signal.SIGKILL)
    assert originals.sweep_incoming() == 1
    with growing, originals.arriving():
        assert growing.keep() == Original(hashlib.sha256(b"storm").hexdigest(), 5)
    assert originals.sweep_incoming() == 0
    assert files(originals) == sorted([".lock", hashlib.sha256(b"storm").hexdigest()])


def test_clearing_waits_for_arrivals_and_gives_up_with_one_sentence(tmp_path):
    originals, steps = Originals(tmp_path / "originals", patience=0.2), []
    given_up = pytest.raises(Unavailable, match="without a pause; try again")
    with originals.arriving(), originals.arriving(), given_up, originals.clearing():
        steps.append("never")
    patient, arrived = Originals(tmp_path / "originals"), threading.Event()

    def clear() -> None:
        with patient.clearing():
            steps.append("cleared")

    with originals.arriving():
        thread = threading.Thread(target=clear)
        thread.start()
        arrived.wait(0.2)
        steps.append("arrived")
    thread.join()
    with originals.arriving():
        steps.append("open again")
    assert steps == ["arrived", "cleared", "open again"]


def test_a_file_accepted_during_a_purge_of_its_bytes_is_there(settings):
    """Threads accept, delete and purge the same few contents: no row that is left misses its file, no file its row."""
    with open_store(settings) as store:
        collection = store.catalog.create_collection("c")

        def hammer(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(15):
                content = f"content {chance.randrange(2)}".encode()
                if chance.random() < 0.5:
                    accept(store, collection, f"{chance.randrange(3)}.txt", io.BytesIO(content))
                    continue
                for document in store.catalog.list_documents(collection.id):
                    with suppress(NotFound):
                        store.catalog.delete_document(document.id)
                store.remove_originals(store.catalog.purge(collection.id).originals)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(hammer, range(4)))
        rows = {d.newest.sha256 for d in store.catalog.list_documents(collection.id)}
        assert not [sha for sha in rows if not store.originals.has(sha)]
        for document in store.catalog.list_documents(collection.id):
            store.catalog.delete_document(document.id)
        store.remove_originals(store.catalog.purge(collection.id).originals)
        assert store.originals.list() == []
