"""How a reader goes over to a new sealed part: at once when it is small, beside the work when it is large."""

from __future__ import annotations

import pytest

from rag.dense import DenseIndex, DenseTail
from rag.lexical import LexicalIndex
from rag.settings import IndexSettings
from tests.contracts.strategies import DIMENSION, EMBEDDER, put, vectors_for

RULES = IndexSettings(seal_rows=1, seal_share=0.0)


class LargeDense(DenseIndex):
    """Takes every part for a large one."""

    opened_at_once = 0


class LargeLexical(LexicalIndex):
    """Takes every part for a large one."""

    opened_at_once = 0


@pytest.fixture
def collection(catalog):
    return catalog.create_collection("c").id


@pytest.fixture(params=["dense", "lexical"])
def index(request, catalog, collection, tmp_path):
    """An index, and the query with which it finds what holds the word storm."""
    if request.param == "dense":
        return LargeDense(catalog, collection, EMBEDDER, DIMENSION, tmp_path, RULES), vectors_for(["storm"])[0]
    return LargeLexical(catalog, collection, tmp_path, RULES), "storm"


def seqs(found):
    return sorted(found.seqs.tolist())


def test_a_large_part_is_opened_beside_the_work(catalog, collection, index):
    """The search that first sees it goes on with what it has; afterwards the part is in place, and the tail begins."""
    reader, query = index
    put(catalog, collection, "a", ["storm", "storm tide"])
    assert seqs(reader.search(query, 5)) == [1, 2]
    reader.seal()
    put(catalog, collection, "b", ["storm cable"])
    assert seqs(reader.search(query, 5)) == [1, 2, 3]
    reader._opening.join()
    now = reader.current()
    assert (now.seal.last_seq, now.sealed_seqs.tolist(), now.tail_seqs.tolist()) == (2, [1, 2], [3])
    assert seqs(reader.search(query, 5)) == [1, 2, 3]


def test_a_reader_that_begins_opens_the_part_and_does_not_fetch_its_rows(catalog, collection, tmp_path):
    """A process that starts, or was asleep for long, is sooner done with the part than with all rows since."""
    put(catalog, collection, "a", [f"storm {n}" for n in range(40)])
    LargeDense(catalog, collection, EMBEDDER, DIMENSION, tmp_path, RULES).seal()

    class Behind(LargeDense):
        fetched_at_most = 10

    reader = Behind(catalog, collection, EMBEDDER, DIMENSION, tmp_path, RULES)
    assert len(reader.search(vectors_for(["storm 3"])[0], 50).seqs) == 40
    assert (len(reader.current().sealed_seqs), len(reader.current().tail_seqs)) == (40, 0)


def test_what_is_retired_while_a_part_is_opened_is_not_found(catalog, collection, index):
    reader, query = index
    gone = put(catalog, collection, "a", ["storm", "storm tide"])
    put(catalog, collection, "b", ["storm cable"])
    reader.current()
    reader.seal()
    catalog.delete_document(gone)
    assert seqs(reader.search(query, 5)) == [3]
    reader._opening.join()
    assert seqs(reader.search(query, 5)) == [3]
    now = reader.current()
    assert (now.sealed_retired.tolist(), now.live) == ([0, 1], 1)


def test_a_large_part_that_is_damaged_is_dropped(catalog, collection, index, tmp_path):
    """Found out beside the work too: the searches before and after find everything."""
    reader, query = index
    put(catalog, collection, "a", ["storm", "storm tide"])
    reader.current()
    reader.seal()
    (part,) = (tmp_path / collection).glob(f"{reader.kind}-*")
    (part / "seqs.npy").write_bytes(b"")
    put(catalog, collection, "b", ["storm cable"])
    assert seqs(reader.search(query, 5)) == [1, 2, 3]
    reader._opening.join()
    put(catalog, collection, "c", ["storm chart"])
    assert seqs(reader.search(query, 5)) == [1, 2, 3, 4]
    assert reader.current().seal is None


def test_two_seals_follow_upon_another(catalog, collection, index):
    """A part that was replaced before it was open is not put in place of its successor."""
    reader, query = index
    for number, name in enumerate("abcd", 1):
        put(catalog, collection, name, ["storm"])
        reader.seal()
        assert seqs(reader.search(query, 9)) == list(range(1, number + 1))
    reader._opening.join()
    assert seqs(reader.search(query, 9)) == [1, 2, 3, 4]


def test_a_tail_that_grows_leaves_the_older_one_as_it_was():
    """Room is shared until it is used up; an older snapshot sees no more rows than it had."""
    tails = [DenseTail(0, vectors_for([]))]
    texts = ["storm", "tide", "cable", "chart", "pilot", "north", "south"]
    for text in texts:
        tails.append(tails[-1].grown(vectors_for([text])))
    for size, tail in enumerate(tails):
        assert tail.vectors.tolist() == vectors_for(texts[:size]).tolist()
    assert len({id(tail.room) for tail in tails}) < len(tails)
