"""The lexical index at some size: early ends of a search change nothing, postings survive merging and files."""

from __future__ import annotations

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import IndexDamaged
from rag.lexical import K1, B, LexicalIndex, LexicalTail, Term, idf, live, peaks_of, saturation, search_terms
from rag.postings import Run, counted, keep, open_kept
from rag.settings import IndexSettings
from tests.contracts.strategies import put

RULES = IndexSettings(seal_rows=1, seal_share=0.0)
numbers = st.lists(st.lists(st.integers(0, 12), max_size=9), max_size=12)


def zipf_texts(count, seed=1):
    """Texts whose words are as uneven as those of a language: some in half of them, most in one or two."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 60, count)
    return [[f"w{n}" for n in np.minimum(random.zipf(1.3, size), 5000)] for size in lengths]


def plain(texts):
    """Rows and counts by term, counted one by one."""
    found = {}
    for row, text in enumerate(texts):
        for term in sorted(set(text)):
            found.setdefault(term, []).append((row, text.count(term)))
    return found


def pairs(rows, counts):
    return list(zip(rows.tolist(), counts.tolist(), strict=True))


@given(st.lists(numbers, min_size=1, max_size=6))
def test_a_tail_grown_in_pieces_has_the_postings_of_the_whole(pieces):
    """However the texts come, each term is in the rows it is in, as often as it is."""
    tail = LexicalTail()
    for piece in pieces:
        tail = tail.grown([[str(n) for n in text] for text in piece])
    whole = [[str(n) for n in text] for piece in pieces for text in piece]
    assert {term: pairs(*tail.of(term)) for term in tail.vocabulary} == plain(whole)
    assert tail.lengths.tolist() == [len(text) for text in whole]
    assert len(tail.of("zebra")[0]) == 0


def test_an_older_tail_does_not_see_what_is_appended():
    old = LexicalTail().grown([["storm"]])
    new = old.grown([["storm", "tide"]])
    assert pairs(*old.of("storm")) == [(0, 1)]
    assert len(old.of("tide")[0]) == 0
    assert pairs(*new.of("storm")) == [(0, 1), (1, 1)]


@given(st.lists(numbers, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_kept_postings_are_those_of_the_rows_that_live(tmp_path_factory, pieces, random):
    """Written, mapped and read back: retired rows are gone, others renumbered, words that are left over not kept."""
    folder = tmp_path_factory.mktemp("kept")
    vocabulary = [f"term {n}" for n in range(13)]
    runs, survivors = [], []
    for piece in pieces:
        alive = np.array([random.random() < 0.7 for _ in piece], dtype=bool)
        runs.append(Run(counted(piece, 0), alive, len(survivors)))
        survivors += [text for text, lives in zip(piece, alive, strict=True) if lives]
    keep(folder, vocabulary, runs, np.array([len(text) for text in survivors]))
    kept = open_kept(folder)
    expected = plain([[vocabulary[n] for n in text] for text in survivors])
    assert [word.decode() for word in kept.words] == sorted(expected)
    for term in vocabulary:
        number, rows, counts = kept.of(term)
        assert pairs(rows, counts) == expected.get(term, [])
        assert (number >= 0) == (term in expected)
    assert kept.lengths.tolist() == [len(text) for text in survivors]


def test_postings_that_do_not_fit_together_are_refused(tmp_path):
    keep(tmp_path, ["a", "b"], [Run(counted([[0, 1], [1]], 0), np.ones(2, dtype=bool))], np.array([2, 1]))
    np.save(tmp_path / "rows.npy", np.zeros(7, dtype=np.int32))
    with pytest.raises(IndexDamaged):
        open_kept(tmp_path)
    (tmp_path / "words.npy").unlink()
    with pytest.raises(IndexDamaged):
        open_kept(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zipf")
    texts = zipf_texts(4_000)
    tail = LexicalTail().grown(texts[:1000]).grown(texts[1000:])
    keep(folder, list(tail.vocabulary), [Run(run, np.ones(4_000, dtype=bool)) for run in tail.runs], tail.lengths)
    return open_kept(folder), texts


@pytest.mark.parametrize("k", [1, 10, 100, 5_000])
@pytest.mark.parametrize("share", [None, 0.002, 0.5], ids=["all", "few", "half"])
def test_ending_early_changes_no_hit_and_no_score(kept, k, share):
    """Questions of rare and of frequent words, against a sum over all rows and all terms."""
    part, texts = kept
    avgdl = float(part.lengths.mean())
    peaks = peaks_of(part, avgdl)
    random = np.random.default_rng(k)
    mask = None if share is None else random.random(len(texts)) < share
    for _ in range(30):
        words = dict.fromkeys(random.choice(texts[random.integers(len(texts))], 6).tolist())
        full = np.zeros(len(texts))
        terms = []
        for word in words:
            number, rows, counts = part.of(word)
            weight = idf(len(texts), len(rows))
            full[rows] += weight * saturation(counts, part.lengths[rows], avgdl)
            terms.append(Term(rows, counts, weight, weight * float(peaks[number])))
        if mask is not None:
            full[~mask] = 0
        hits = search_terms(terms, part.lengths, avgdl, mask, k)
        best = np.sort(full[full > 0])[::-1][:k]
        np.testing.assert_allclose(hits.scores, best, rtol=1e-5)
        np.testing.assert_allclose(hits.scores, full[hits.seqs], rtol=1e-5)


def test_peaks_are_the_greatest_saturation_of_each_term(kept):
    part, texts = kept
    avgdl = float(part.lengths.mean())
    peaks = peaks_of(part, avgdl)
    assert len(peaks) == len(part.words) == len({word for text in texts for word in text})
    for number in range(0, len(peaks), 97):
        rows, counts = part.postings.span(number)
        np.testing.assert_allclose(peaks[number], saturation(counts, part.lengths[rows], avgdl).max(), rtol=1e-5)


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_live_rows_are_counted_from_the_shorter_side(rows, retired):
    sides = [np.array(sorted(side), dtype=np.int64) for side in (rows, retired)]
    assert live(*sides) == len(rows - retired)


def test_a_foreign_library_ranks_alike(catalog, tmp_path):
    """bm25s with Lucene's formula gives the same scores to the same terms, sealed and unsealed."""
    collection = catalog.create_collection("c").id
    texts = [" ".join(text) for text in zipf_texts(300, seed=2)]
    put(catalog, collection, "a", texts)
    index = LexicalIndex(catalog, collection, tmp_path, RULES)
    judge = bm25s.BM25(k1=K1, b=B, method="lucene")
    judge.index([text.split() for text in texts], show_progress=False)
    for _ in range(2):
        for question in ("w1 w7 w30", "w2 w500", texts[5]):
            expected = judge.get_scores(list(dict.fromkeys(question.split())))
            if len(set(question.split())) < len(question.split()):
                continue
            hits = index.search(question, 300)
            np.testing.assert_allclose(hits.scores, np.sort(expected[expected > 0])[::-1], rtol=1e-4)
            np.testing.assert_allclose(hits.scores, expected[hits.seqs - 1], rtol=1e-4)
        index.seal()


def test_sealing_merges_what_is_searched_and_forgets_what_is_retired(catalog, tmp_path):
    """A second seal is made of the first and the tail; words that only retired rows held are in no file."""
    collection = catalog.create_collection("c").id
    index = LexicalIndex(catalog, collection, tmp_path, RULES)
    gone = put(catalog, collection, "a", ["a kestrel over the harbour", "tide tables"])
    put(catalog, collection, "b", ["storm at the harbour"])
    index.seal()
    put(catalog, collection, "c", ["harbour master", "harbour harbour"])
    catalog.delete_document(gone)
    before = index.search("harbour tide", 10)
    index.seal()
    after = index.search("harbour tide", 10)
    assert before.seqs.tolist() == after.seqs.tolist()
    assert set(after.seqs.tolist()) == {3, 4, 5}
    part = max((tmp_path / collection).glob("lexical-5-*"))
    assert [bytes(word) for word in open_kept(part).words] == [b"harbour", b"master", b"storm"]
    fresh = LexicalIndex(catalog, collection, tmp_path, RULES)
    assert fresh.search("harbour tide", 10).scores.tolist() == after.scores.tolist()
