"""The benchmark of scale on a few invented rows: what it searches is what it says it made."""

from __future__ import annotations

import numpy as np
import pytest

from eval.bench_scale import CANDIDATES, Material, fill, kinds, product, timed, windows_of
from rag.sealed_vectors import nearest
from tests.contracts.strategies import unit

REAL, ROWS, DIMENSION = 300, 700, 16


@pytest.fixture(scope="module")
def real():
    random = np.random.default_rng(8)
    vectors = unit(random.standard_normal((REAL, DIMENSION)))
    texts = [f"passage {n} tells of tide {n % 7} and storm {n % 11}" for n in range(REAL)]
    asked = unit(vectors[:20] + 0.1 * random.standard_normal((20, DIMENSION)))
    near = nearest(vectors.astype(np.float16), vectors)[:, 1:]
    return Material(texts, vectors, near, [f"storm {n}" for n in range(20)], asked, "test-embedder")


def test_rows_are_real_first_and_then_mixed_and_always_the_same(real):
    """Whole steps give the same rows again; a mixed one is near a real one, but none of them."""
    texts, vectors = real.step(0, ROWS)
    assert (len(texts), vectors.shape) == (ROWS, (ROWS, DIMENSION))
    assert texts[:REAL] == real.texts
    assert vectors.tolist() == real.step(0, ROWS)[1].tolist()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    closest = (vectors[REAL:] @ real.vectors.T).max(axis=1)
    assert 0.6 < np.median(closest) < 0.9999


def test_windows_are_runs_of_whole_sentences_and_never_the_whole_text():
    sentences = [f"Sentence number {n} tells of the harbour and of the tide." for n in range(40)]
    text = " ".join(sentences)
    windows = list(windows_of(text))
    assert len(windows) > 5
    for window in windows:
        assert window in text
        assert window.startswith("Sentence")
        assert window.endswith("tide.")
    assert list(windows_of("One sentence alone.")) == []


def test_the_tables_have_a_row_for_each_kind_and_each_index(real, tmp_path):
    """Small enough for an exact index: recall is 1, and both indexes hold every row."""
    table = kinds(real, ROWS, {"flat, float32": {"kind": "flat"}}, tmp_path)
    row = dict(zip(table[0], table[1], strict=True))
    assert (row["index"], row["of questions"]) == ("flat, float32", "1.000")
    (tmp_path / "catalog").mkdir()
    filled = fill(real, ROWS, tmp_path / "catalog")
    rows = product(real, filled)
    assert [row[0] for row in rows] == ["index", "dense", "lexical"]
    catalog, dense, lexical = filled.open()
    assert (dense.current().live, lexical.current().live) == (ROWS, ROWS)
    assert dense.current().seal is not None
    assert len(dense.search(real.asked[0], CANDIDATES).seqs) == CANDIDATES
    assert lexical.search("passage 299", 1).seqs.tolist() == [300]
    catalog.close()


def test_times_are_those_of_each_call():
    found, times = timed(lambda value: value + 1, [1, 2, 3])
    assert found == [2, 3, 4]
    assert len(times.wall) == len(times.processor) == len(times.cells()) == 3
