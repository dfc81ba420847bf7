"""A whole Citewell with its indexes in Milvus: the journeys of a document through the same doors as without it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ingest.worker import Worker
from rag.assembly import open_citewell
from rag.milvus import Milvus
from rag.milvus_indexes import PREFIX
from rag.testing import WordEmbedder
from tests.milvus import started_engine
from tests.rag.test_purge import MARKER, delete, found, holding, ingest, many_texts


@pytest.fixture
def engine(tmp_path):
    started = started_engine(tmp_path / "milvus")
    yield started
    started.stop()


@pytest.fixture
def chosen(settings, engine):
    """The settings of a Citewell in Milvus that seals at once."""
    return settings.model_copy(update={"index": engine.settings(seal_rows=1, milvus_timeout=1.0)})


@pytest.fixture
def held(chosen):
    """Ask Milvus how many rows each of our collections holds."""
    with closing(Milvus(chosen.index)) as milvus:
        yield lambda: sorted((n.split("_")[2], milvus.count(n, 10**9)) for n in milvus.names(PREFIX))


def test_a_document_is_found_deleted_and_purged(chosen, engine, held):
    """From the first upload to the last trace, in Milvus and in the data folder."""
    with open_citewell(chosen, embedder=WordEmbedder()) as citewell:
        collection = citewell.store.catalog.create_collection("c")
        ingest(citewell, collection, {"a.md": many_texts(MARKER, 10), "b.md": many_texts("coral", 10)})
        assert (found(citewell, MARKER), found(citewell, "coral")) == (["a.md"], ["b.md"])
        assert held() == []
        Worker(citewell).seal_where_due()
        assert held() == [("dense", 20), ("lexical", 20)]
        assert (found(citewell, MARKER), found(citewell, "coral")) == (["a.md"], ["b.md"])
        seqs, vectors = citewell.store.catalog.vector_rows(collection.id, citewell.embedder.fingerprint, 0, 10**6)
        of = {s: p.document for s, p in citewell.store.catalog.passages(collection.id, seqs.tolist()).items()}
        gone = {v.astype("<f4").tobytes() for s, v in zip(seqs.tolist(), vectors, strict=True) if of[s] == "a.md"}
        assert all(holding(engine.folder, vector[8:200]) for vector in gone)
        delete(citewell, collection, "a.md")
        ingest(citewell, collection, {"c.md": many_texts("pearl", 5)})
        assert (found(citewell, MARKER), found(citewell, "pearl")) == ([], ["c.md"])
        Worker(citewell).seal_where_due()
        assert {("dense", 15), ("lexical", 15)} <= set(held())
        citewell.purge(collection)
        assert held() == [("dense", 15), ("lexical", 15)]
        assert not [files for vector in gone if (files := holding(engine.folder, vector[8:200]))]
        assert holding(chosen.data, MARKER.encode()) == []
        assert (found(citewell, MARKER), found(citewell, "pearl"), found(citewell, "coral")) == ([], ["c.md"], ["b.md"])


def test_a_deleted_collection_leaves_milvus_even_if_that_was_away(chosen, engine, held):
    """Deleting works without Milvus; what stays there is swept as soon as it is back. Others are left alone."""
    with open_citewell(chosen, embedder=WordEmbedder()) as citewell:
        catalog = citewell.store.catalog
        made = [catalog.create_collection(name) for name in ("c", "other", "third")]
        for collection in made:
            ingest(citewell, collection, {"a.md": many_texts("coral", 3)})
        Worker(citewell).seal_where_due()
        milvus = Milvus(chosen.index)
        names = milvus.names(PREFIX)
        assert len(names) == 6
        citewell.store.delete_collection("third")
        assert milvus.names(PREFIX) == [n for n in names if made[2].id not in n]
        engine.stop()
        citewell.store.delete_collection("other")
        assert (citewell.store.index_folder / made[1].id).is_dir()
        assert citewell.store.sweep() == 0
        engine.start()
        milvus.close()
        assert citewell.store.sweep() == 1
        assert milvus.names(PREFIX) == [n for n in names if made[0].id in n]
        assert not (citewell.store.index_folder / made[1].id).exists()
        assert found(citewell, "coral") == ["a.md"]
        milvus.close()


MISSING = """
import sys
sys.modules["pymilvus"] = None
from pathlib import Path
from rag.assembly import open_citewell
from rag.errors import Misconfigured
from rag.settings import IndexSettings, load_settings
from rag.testing import WordEmbedder
index = IndexSettings(engine="milvus", milvus_uri="http://127.0.0.1:1")
try:
    with open_citewell(load_settings(data=Path(sys.argv[1]), index=index), embedder=WordEmbedder()):
        pass
except Misconfigured as error:
    print(error.message)
"""


def test_without_pymilvus_the_start_says_what_to_install(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MISSING, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout == "pymilvus is not installed; run `pip install citewell[milvus]`.\n"


def test_an_engine_that_is_not_there_stops_no_ingest(settings, tmp_path):
    """What is committed is found from memory; only the sealing waits for Milvus."""
    pytest.importorskip("pymilvus")
    from rag.errors import Unavailable
    from rag.settings import IndexSettings

    index = IndexSettings(engine="milvus", milvus_uri="http://127.0.0.1:1", milvus_timeout=0.3, seal_rows=1)
    with open_citewell(settings.model_copy(update={"index": index}), embedder=WordEmbedder()) as citewell:
        collection = citewell.store.catalog.create_collection("c")
        ingest(citewell, collection, {"a.md": many_texts("coral", 3)})
        assert found(citewell, "coral") == ["a.md"]
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            Worker(citewell).seal_where_due()
        assert found(citewell, "coral") == ["a.md"]
