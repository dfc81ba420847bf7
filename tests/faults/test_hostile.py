"""Parsers that crash, eat memory or never come back: their documents fail by themselves, and no other waits for them.

The parser is made to do so by the name of the document, in the child process that reads: by a ``sitecustomize`` on the
path of all processes, so that everything around it is the product's own.
"""

from __future__ import annotations

from io import BytesIO

import pytest

from ingest.worker import accept
from rag.records import State
from rag.settings import load_settings
from rag.store import open_store
from tests.faults.checks import check_rest
from tests.faults.supervisor import ROOT, site, until

PATCH = """
import builtins, sys

def wrapped(parse):
    def hostile(path, name, *more, **others):
        if "segfault" in name:
            import ctypes
            ctypes.string_at(0)
        if "memory" in name:
            kept = [bytes(1 << 28) for _ in range(64)]  # not touched: only the address space is full
        if "endless" in name:
            import time
            while True:
                time.sleep(1)
        return parse(path, name, *more, **others)
    return hostile

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "ingest.parse":
            return None
        sys.meta_path.remove(self)
        import importlib.util
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.parse = wrapped(module.parse)
        spec.loader.exec_module = exec_module
        return spec

if "ingest.sandbox" in " ".join(sys.orig_argv):
    sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def patched(tmp_path):
    """A path of modules on which the parser of the child process is hostile."""
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH)
    return f"{folder}:{ROOT}"


def take(store, *names):
    """Accept files under names, each with a text of its own, and return the collection."""
    collection = store.catalog.ensure_collection("c")
    for name in names:
        accept(store, collection, name, BytesIO(f"The mark of this file is {name}.".encode()))
    return collection


def newest(store, collection):
    return {document.name: document.newest for document in store.catalog.list_documents(collection.id)}


def test_a_parser_that_crashes_eats_memory_or_hangs_fails_its_document_alone(tmp_path, patched):
    """Each fails with its own sentence after its attempts; the files around them are read, and nothing is left."""
    settings = {"INGEST__ATTEMPTS": "2", "INGEST__PARSE_SECONDS": "8", "INGEST__PARSE_MEMORY_BYTES": str(3 << 30)}
    with site(tmp_path / "site", patched, **settings) as here:
        with open_store(load_settings(data=here.data)) as store:
            bad = ("segfault.txt", "memory.txt", "endless.txt")
            collection = take(store, "a.txt", bad[0], "b.txt", bad[1], "c.txt", bad[2], "d.txt")
            here.start_worker()
            until(lambda: here.queued() == 0, "all files end")
            found = newest(store, collection)
        assert {name for name, version in found.items() if version.state is State.READY} == {*found} - {*bad}
        assert {name: (found[name].error_code, found[name].attempts) for name in bad} == {
            "segfault.txt": ("parser_stopped", 2),
            "memory.txt": ("document_too_large", 1),
            "endless.txt": ("document_too_slow", 2),
        }
        for name, words in zip(bad, ("SIGSEGV", "bytes of memory", "longer than 8 seconds"), strict=True):
            assert words in found[name].error
            assert found[name].error.endswith(".")
        here.stop()
        check_rest(here.data, here.temporary)


def test_a_small_file_does_not_wait_for_endless_ones(tmp_path, patched):
    """Two readers, three documents without an end, then a small file: it is ready while those are still being read."""
    with site(tmp_path / "site", patched, INGEST__PARSERS="2") as here:
        with open_store(load_settings(data=here.data)) as store:
            collection = take(store, "endless-1.txt", "endless-2.txt", "endless-3.txt")
            here.zygote.fork("tests.faults.points:work_with_little_patience", [str(here.data)], here.log)
            until(lambda: len(here.query("SELECT id FROM versions WHERE state = 'processing'")) >= 2, "both are taken")
            take(store, "small.txt")
            until(lambda: newest(store, collection)["small.txt"].state is State.READY, "the small file is ready")
            states = {name: version.state for name, version in newest(store, collection).items()}
        assert {states[f"endless-{number}.txt"] for number in (1, 2, 3)} <= {State.PROCESSING, State.QUEUED}
