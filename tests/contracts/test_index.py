"""The contract of `rag.protocols.Index`, held by the dense and the lexical index against their plain exact twins."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rag.catalog import Catalog
from rag.dense import DenseIndex
from rag.errors import IndexDamaged
from rag.lexical import LexicalIndex, average_length, exact_scores
from rag.lifecycle import read_manifest
from rag.settings import IndexSettings
from rag.words import Analyser
from tests.contracts.strategies import DIMENSION, EMBEDDER, hash_of, put, sentences, vectors_for, words

SETTINGS = IndexSettings(seal_rows=1, seal_share=0.0)


def dense_of(catalog: Catalog, collection_id: str, folder: Path, rules: IndexSettings = SETTINGS) -> DenseIndex:
    return DenseIndex(catalog, collection_id, EMBEDDER, DIMENSION, folder, rules)


def live_texts(catalog: Catalog, collection_id: str) -> dict[int, str]:
    return {row.seq: row.text for row in catalog.text_rows(collection_id, 0, 10**9)}


def exact_dense(rows: dict[int, str], query: np.ndarray, k: int, allowed: set[int] | None = None) -> dict[int, float]:
    """The k best rows by plain products, with everything that ties with the last of them."""
    scores = {seq: float(vectors_for([t])[0] @ query) for seq, t in rows.items() if allowed is None or seq in allowed}
    bar = sorted(scores.values(), reverse=True)[:k][-1:] or [0.0]
    return {seq: score for seq, score in scores.items() if score >= bar[0] - 1e-6}


def check_dense(index: DenseIndex, rows: dict[int, str], query: np.ndarray, k: int, allowed: list[int] | None) -> None:
    hits = index.search(query, k, None if allowed is None else np.array(allowed, dtype=np.int64))
    exact = exact_dense(rows, query, k, None if allowed is None else set(allowed))
    possible = len(rows if allowed is None else set(allowed) & set(rows))
    assert len(hits.seqs) == min(k, possible)
    assert set(hits.seqs.tolist()) <= set(exact)
    np.testing.assert_allclose(hits.scores, [exact[int(s)] for s in hits.seqs], atol=1e-5)
    assert sorted(zip(-hits.scores, hits.seqs, strict=True)) == list(zip(-hits.scores, hits.seqs, strict=True))


def check_lexical(index: LexicalIndex, rows: dict[int, str], query: str, k: int, allowed: list[int] | None) -> None:
    analyser = Analyser()
    hits = index.search(query, k, None if allowed is None else np.array(allowed, dtype=np.int64))
    avgdl = average_length(index.current())
    scores = exact_scores(analyser.terms(query), [analyser.terms(text) for text in rows.values()], avgdl)
    exact = {s: x for s, x in zip(rows, scores, strict=True) if x > 0 and (allowed is None or s in allowed)}
    assert len(hits.seqs) == min(k, len(exact))
    np.testing.assert_allclose(hits.scores, sorted(exact.values(), reverse=True)[:k], rtol=1e-4)
    np.testing.assert_allclose(hits.scores, [exact[int(s)] for s in hits.seqs], rtol=1e-4)


class IndexLife(RuleBasedStateMachine):
    """Documents come, change and go; parts are sealed, lost and damaged; readers open and stay open.

    At every moment each reader, the oldest and a new one, finds exactly what the plain twins find.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.catalog = self.open_catalog()
        self.collection = self.catalog.create_collection(self.folder.name).id
        self.names: dict[str, str] = {}
        self.open_indexes()

    #: A file with an empty catalog: making its tables anew for each life would take longer than the life.
    empty: Path

    def open_catalog(self) -> Catalog:
        shutil.copy(self.empty, self.folder)
        return Catalog.in_folder(self.folder)

    def open_indexes(self) -> None:
        self.dense = dense_of(self.catalog, self.collection, self.folder / "indexes")
        self.lexical = LexicalIndex(self.catalog, self.collection, self.folder / "indexes", SETTINGS)

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            shutil.rmtree(self.folder)

    @rule(name=st.sampled_from("abcd"), texts=st.lists(sentences, min_size=1, max_size=4))
    def write(self, name: str, texts: list[str]) -> None:
        self.names[name] = put(self.catalog, self.collection, name, texts)

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.catalog.delete_document(self.names.pop(data.draw(st.sampled_from(sorted(self.names)))))

    @rule()
    def seal(self) -> None:
        last = self.catalog.pulse(self.collection).last_seq
        assert self.dense.seal() == last
        assert self.lexical.seal() == last

    @rule()
    def reopen(self) -> None:
        self.open_indexes()

    @rule(damage=st.sampled_from(["remove", "truncate", "manifest"]))
    def lose_files(self, damage: str) -> None:
        for part in (self.folder / "indexes").glob("*/*-*"):
            if damage == "remove":
                shutil.rmtree(part)
            elif damage == "truncate":
                (part / "seqs.npy").write_bytes(b"")
            else:
                (part / "manifest.json").write_text("{}")
        self.reopen()

    @invariant()
    def finds_what_the_twins_find(self) -> None:
        if not hasattr(self, "catalog"):
            return
        rows = live_texts(self.catalog, self.collection)
        question = "storm at the north buoy"
        for allowed in (None, sorted(rows)[::2]):
            check_dense(self.dense, rows, vectors_for([question])[0], 3, allowed)
            check_lexical(self.lexical, rows, question, 3, allowed)


LIVES = settings(max_examples=30, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))


def test_index_life(migrated_file):
    """Whatever happens to documents and files, in whatever order: each reader finds what the plain twins find."""
    IndexLife.empty = migrated_file
    run_state_machine_as_test(IndexLife, settings=LIVES)


class IndexLifeOnPostgresql(IndexLife):
    """The same life over PostgreSQL; all its collections lie in one database."""

    url = ""

    def open_catalog(self) -> Catalog:
        return Catalog(self.url)


def test_index_life_on_postgresql(postgresql_url):
    IndexLifeOnPostgresql.url = postgresql_url
    run_state_machine_as_test(IndexLifeOnPostgresql, settings=settings(LIVES, max_examples=6))


@pytest.fixture
def catalog(tmp_path):
    opened = Catalog.in_folder(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("sealed", [False, True], ids=["tail", "sealed"])
class TestCorners:
    def test_empty_collection_has_no_hits(self, catalog, tmp_path, sealed):
        """An index without rows answers with nothing, whatever k is."""
        collection = catalog.create_collection("empty").id
        dense, lexical = dense_of(catalog, collection, tmp_path), LexicalIndex(catalog, collection, tmp_path, SETTINGS)
        if sealed:
            assert (dense.seal(), lexical.seal()) == (0, 0)
        assert len(dense.search(vectors_for(["x"])[0], 5).seqs) == 0
        assert len(lexical.search("x", 5).seqs) == 0

    def test_ties_come_in_the_order_of_their_numbers(self, catalog, tmp_path, sealed):
        """Equal scores are ordered by sequence number on either side of the seal."""
        collection = catalog.create_collection("ties").id
        put(catalog, collection, "a", ["storm buoy"] * 6)
        dense, lexical = dense_of(catalog, collection, tmp_path), LexicalIndex(catalog, collection, tmp_path, SETTINGS)
        if sealed:
            dense.seal(), lexical.seal()
        assert dense.search(vectors_for(["storm buoy"])[0], 6).seqs.tolist() == [1, 2, 3, 4, 5, 6]
        assert lexical.search("storm", 3).seqs.tolist() == [1, 2, 3]

    def test_an_empty_filter_lets_nothing_through(self, catalog, tmp_path, sealed):
        collection = catalog.create_collection("filter").id
        put(catalog, collection, "a", ["storm buoy"])
        dense, lexical = dense_of(catalog, collection, tmp_path), LexicalIndex(catalog, collection, tmp_path, SETTINGS)
        if sealed:
            dense.seal(), lexical.seal()
        nothing = np.zeros(0, dtype=np.int64)
        assert len(dense.search(vectors_for(["storm buoy"])[0], 5, nothing).seqs) == 0
        assert len(lexical.search("storm", 5, nothing).seqs) == 0


def test_a_question_of_unknown_or_no_words_finds_nothing(catalog, tmp_path):
    collection = catalog.create_collection("c").id
    put(catalog, collection, "a", ["storm buoy"])
    lexical = LexicalIndex(catalog, collection, tmp_path, SETTINGS)
    assert [len(lexical.search(q, 5).seqs) for q in ("zebra", "", "the of and", "?!")] == [0, 0, 0, 0]


def test_sealing_changes_no_order_and_no_score_but_by_the_mean_length(catalog, tmp_path):
    """The same rows before and after sealing: equal scores, since avgdl is equal too."""
    collection = catalog.create_collection("c").id
    put(catalog, collection, "a", [" ".join(["storm"] * n + ["buoy"]) for n in range(1, 9)])
    lexical = LexicalIndex(catalog, collection, tmp_path, SETTINGS)
    before = lexical.search("storm buoy", 8)
    lexical.seal()
    after = lexical.search("storm buoy", 8)
    assert before.seqs.tolist() == after.seqs.tolist()
    np.testing.assert_allclose(before.scores, after.scores, rtol=1e-5)


@pytest.mark.parametrize(
    "chosen",
    [{}, {"codes": "sq4"}, {"codes": "sq8"}, {"kind": "hnsw"}],
    ids=["ivf:rabitq", "ivf:sq4", "ivf:sq8", "hnsw"],
)
def test_an_approximate_part_has_the_recall_that_its_manifest_says(catalog, tmp_path, chosen):
    """Above `flat_rows` the part is approximate; recall measured here against NumPy is within 0.03 of the record.

    Scores are the cosines themselves, and a filter changes nothing but the rows.
    """
    rules = IndexSettings(seal_rows=1, flat_rows=500, min_recall=0.95, **chosen)
    collection = catalog.create_collection("big").id
    texts = [
        f"{n} {WORD}" for n in range(300) for WORD in ("storm", "buoy", "tide", "cable", "chart", "pilot", "north")
    ]
    put(catalog, collection, "big", texts)
    index = dense_of(catalog, collection, tmp_path, rules)
    index.seal()
    manifest = read_manifest(next((tmp_path / collection).glob("dense-*")))
    rows = live_texts(catalog, collection)
    matrix = vectors_for(list(rows.values()))
    queries = vectors_for([f"question {n}" for n in range(200)])
    hits = [index.search(query, 10) for query in queries]
    seqs = np.array(list(rows))
    exact = [set(seqs[np.argsort(-(matrix @ query))[:10]].tolist()) for query in queries]
    recall = np.mean([len(a & set(b.seqs.tolist())) / 10 for a, b in zip(exact, hits, strict=True)])
    assert manifest["index"] == chosen.get("kind", "ivf")
    assert manifest["codes"] == chosen.get("codes", "sq8" if chosen.get("kind") else "rabitq")
    assert manifest["recall@10"] >= 0.95
    assert abs(recall - manifest["recall@10"]) < 0.03
    for query, found in zip(queries, hits, strict=True):
        np.testing.assert_allclose(found.scores, matrix[found.seqs - 1] @ query, atol=1e-5)
    some = sorted(rows)[:: len(rows) // 7]
    assert set(index.search(queries[0], 20, np.array(some)).seqs.tolist()) == set(some)


def test_a_reader_sees_the_commits_and_seals_of_another_process(catalog, tmp_path):
    """Two catalogs on one file are two processes as far as the database can tell."""
    other = Catalog.in_folder(tmp_path)
    collection = catalog.create_collection("c").id
    reader = dense_of(catalog, collection, tmp_path / "i")
    writer = dense_of(other, collection, tmp_path / "i")
    document = put(other, collection, "a", ["storm"])
    assert reader.search(vectors_for(["storm"])[0], 5).seqs.tolist() == [1]
    writer.seal()
    put(other, collection, "b", ["tide"])
    assert set(reader.search(vectors_for(["storm"])[0], 5).seqs.tolist()) == {1, 2}
    other.delete_document(document)
    assert reader.search(vectors_for(["storm"])[0], 5).seqs.tolist() == [2]
    other.close()


def test_sealing_leaves_no_more_than_two_parts_and_no_unfinished_one(catalog, tmp_path):
    collection = catalog.create_collection("c").id
    index = dense_of(catalog, collection, tmp_path)
    (tmp_path / collection / ".making-dense-9-dead").mkdir(parents=True)
    for n in range(4):
        put(catalog, collection, f"d{n}", [f"storm {n}"])
        index.seal()
    names = sorted(path.name for path in (tmp_path / collection).iterdir() if path.is_dir())
    assert [name.rsplit("-", 1)[0] for name in names] == ["dense-3", "dense-4"]


@pytest.mark.parametrize("victim", ["manifest.json", "seqs.npy", "index.faiss"])
def test_a_damaged_part_is_named_and_refused(catalog, tmp_path, victim):
    """One flipped byte in any file of a part is found out."""
    collection = catalog.create_collection("c").id
    put(catalog, collection, "a", ["storm", "tide"])
    dense_of(catalog, collection, tmp_path).seal()
    part = next((tmp_path / collection).glob("dense-*"))
    data = bytearray((part / victim).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (part / victim).write_bytes(bytes(data))
    with pytest.raises(IndexDamaged):
        read_manifest(part)
    assert dense_of(catalog, collection, tmp_path).search(vectors_for(["storm"])[0], 2).seqs.tolist() == [1, 2]
    assert catalog.seal(collection, "dense", EMBEDDER) is None


def test_strategies_give_predictable_vectors():
    assert hash_of("storm") == hash_of("storm")
    np.testing.assert_allclose(np.linalg.norm(vectors_for(["a", "b"]), axis=1), 1.0, atol=1e-3)
    assert words is not None
