"""Files of sealed index parts are damaged under a running server and worker: searches stay exact, parts come anew."""

from __future__ import annotations

import os
import shutil
from contextlib import closing

import httpx
import numpy as np
import pytest

from eval.corpus import generate
from rag.assembly import open_citewell
from rag.dense import DenseIndex
from rag.settings import IndexSettings, load_settings
from tests.contracts.strategies import DIMENSION, EMBEDDER, put, vectors_for
from tests.faults.ledger import Book, User, file_of
from tests.faults.supervisor import site, until
from tests.processes import alive

QUERIES = (
    "Why was the conveyor stopped?", "rule on overtime", "kestrel0000011", "delivery of steel plate",
    "unusual noise of the compressor", "who pays for business travel",
)  # fmt: skip


def truncate(part, _):
    """Cut all files in the middle, in place: they stay open and mapped elsewhere."""
    for file in part.iterdir():
        os.truncate(file, file.stat().st_size // 2)


def flip(part, _):
    """Turn over one bit in the middle of each file, in place."""
    for file in part.iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        with file.open("r+b") as stream:
            stream.write(data)


def lose_file(part, _):
    (part / "seqs.npy").unlink()


def lose_folder(part, _):
    shutil.rmtree(part)


def mix_up(part, other):
    """Put the files of another collection's part in its place, whole and with their own manifest."""
    shutil.rmtree(part)
    shutil.copytree(other, part)


DAMAGE = (truncate, flip, lose_file, lose_folder, mix_up)


class Parts:
    """The sealed parts of a site's collections."""

    def __init__(self, here):
        self.here = here

    def of(self, user):
        """Return the sealed parts in force, by kind, if they hold all rows; none while any is being made."""
        seals = self.here.query(
            "SELECT kind, folder FROM seals s JOIN collections c ON c.id = s.collection_id "
            "WHERE c.id = ? AND s.last_seq = c.last_seq", user.book.collection_id,
        )  # fmt: skip
        folder = self.here.data / "indexes" / user.book.collection_id
        found = {kind: folder / name for kind, name in seals}
        return found if len(found) == 2 else {}


def answers(client, collection):
    """Return the scores by chunk that the server finds for each query."""
    found = []
    for query in QUERIES:
        body = {"query": query, "collections": [collection], "top_k": 10}
        reply = client.post("/v1/search", json=body)
        assert reply.status_code == 200, reply.text
        found.append({p["chunk_id"]: p["score"] for p in reply.json()["passages"]})
    return found


def twin(data, folder, embedder, collection):
    """Return the same of a Citewell that has no index files and searches all rows exactly."""
    folder.mkdir()
    for file in data.glob("catalog.sqlite3*"):
        shutil.copy(file, folder)
    with open_citewell(load_settings(data=folder), embedder=embedder) as citewell:
        plans = [citewell.plan(query, [collection], top_k=10) for query in QUERIES]
        return [{p.chunk_id: p.score for p in citewell.search(plan).passages} for plan in plans]


def same(found, exact):
    """Check that answers are the twin's: the same passages with the same scores."""
    for mine, theirs in zip(found, exact, strict=True):
        assert mine == pytest.approx(theirs, abs=2e-3)


def test_damaged_parts_are_noticed_at_once_and_made_anew(tmp_path, embedder):
    """Cut off, flipped, lost or mixed up under a running server: what it finds is what the plain twin finds."""
    entries = generate(tmp_path / "corpus", 30, 11, ("txt", "csv"), oddities=False)
    files = [(entry.name, file_of(tmp_path / "corpus", entry)) for entry in entries]
    with site(tmp_path / "site", INDEX__SEAL_ROWS="1", INDEX__SEAL_SHARE="0") as here:
        here.start_server()
        with closing(User(here.address, Book("left"))) as left, closing(User(here.address, Book("right"))) as right:
            for user, some in ((left, files[:20]), (right, files[20:])):
                user.open_collection()
                user.upload(dict(some))
            parts = Parts(here)
            until(lambda: here.queued() == 0 and parts.of(left) and parts.of(right), "all is sealed")
            exact = twin(here.data, tmp_path / "twin", embedder, "left")
            assert all(exact)
            server = here.server
            with httpx.Client(base_url=here.address, timeout=60, trust_env=False) as client:
                same(answers(client, "left"), exact)
                for damage in DAMAGE:
                    before, others = parts.of(left), parts.of(right)
                    for kind, part in before.items():
                        damage(part, others[kind])
                    same(answers(client, "left"), exact)
                    until(lambda before=before: (now := parts.of(left)) and not {*now.values()} & {*before.values()},
                          f"new parts after {damage.__name__}")  # fmt: skip
                    same(answers(client, "left"), exact)
            assert alive(server)
        assert here.log.read_text().count("sealed index part dropped") >= 2 * len(DAMAGE)
        here.stop()


def test_a_part_that_is_younger_than_the_look_at_the_catalog_is_not_counted_twice(tmp_path, citewell):
    """A sealing may end between a reader's look at the counters and its look at the part in force."""
    catalog = citewell.store.catalog
    collection = catalog.create_collection("c").id
    rules = IndexSettings(seal_rows=1, seal_share=0.0)
    other = DenseIndex(catalog, collection, EMBEDDER, DIMENSION, tmp_path, rules)

    class Slow:
        """Says what the counters are, and is then so slow that other things happen."""

        happen = staticmethod(lambda: None)

        def __getattr__(self, name):
            return getattr(catalog, name)

        def pulse(self, collection_id):
            found = catalog.pulse(collection_id)
            happen, self.happen = self.happen, lambda: None
            happen()
            return found

    slow = Slow()
    reader = DenseIndex(slow, collection, EMBEDDER, DIMENSION, tmp_path, rules)
    texts = ["storm at sea", "calm before noon", "wind from the north"]
    put(catalog, collection, "a", texts[:1])

    def meanwhile():
        put(catalog, collection, "b", texts[1:2])
        other.seal()

    slow.happen = meanwhile
    reader.current()
    put(catalog, collection, "c", texts[2:])
    hits = reader.search(vectors_for(texts[:1])[0], 10)
    assert sorted(hits.seqs.tolist()) == [1, 2, 3]
    np.testing.assert_allclose(hits.scores[0], 1.0, atol=1e-3)  # vectors are kept in float16
