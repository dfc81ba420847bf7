"""The benchmark of scale on a few invented rows: what it searches is what it says it made."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eval.bench_scale import CANDIDATES, fill, kinds, on_disk, product, searches, timed
from eval.material import Material, Step, gather, windows_of
from rag.sealed_vectors import nearest
from rag.settings import load_settings
from tests.contracts.strategies import unit

REAL, ROWS, DIMENSION = 300, 700, 16


@pytest.fixture(scope="module")
def real():
    random = np.random.default_rng(8)
    vectors = unit(random.standard_normal((REAL, DIMENSION)))
    texts = [f"passage {n} tells of tide {n % 7} and storm {n % 11}" for n in range(REAL)]
    asked = unit(vectors[:20] + 0.1 * random.standard_normal((20, DIMENSION)))
    near = nearest(vectors.astype(np.float16), vectors)[:, 1:]
    codes = [random.integers(0, 256, (4 + n % 3, DIMENSION // 8), dtype=np.uint8) for n in range(REAL)]
    return Material(Step(texts, vectors, codes), near, [f"storm {n}" for n in range(20)], asked, "test-embedder")


def test_rows_are_real_first_and_then_mixed_and_always_the_same(real):
    """Whole steps give the same rows again; a mixed one is near a real one, but none of them."""
    made, again = real.step(0, ROWS), real.step(0, ROWS)
    assert (len(made.texts), made.vectors.shape, len(made.codes)) == (ROWS, (ROWS, DIMENSION), ROWS)
    assert made.texts[:REAL] == real.real.texts
    assert made.vectors.tolist() == again.vectors.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(made.codes, again.codes, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(made.codes, real.real.codes, strict=False))
    assert {len(codes) for codes in made.codes[REAL:]} <= {4, 5, 6}
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)
    closest = (made.vectors[REAL:] @ real.real.vectors.T).max(axis=1)
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


def test_whole_searches_are_measured_over_what_was_made(tmp_path):
    """Real passages and questions of a folder: every search finds something, and the parts on disk add up."""
    folder, data = tmp_path / "set", tmp_path / "data"
    folder.mkdir()
    data.mkdir()
    corpus = [{"_id": f"p{n}", "title": "", "text": f"Berth {n} takes ships of {n + 3} metres."} for n in range(40)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "Which ships does berth 7 take?"}))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp7\t1\n")
    real = gather(load_settings(), [folder], 40, tell=print)
    filled = fill(real, 120, data)
    product(real, filled)
    ((_, *head), (count, *cells)) = searches(real, filled)
    assert (count, len(head)) == ("1", len(cells))
    assert all(float(cell) > 0 for cell in cells)
    names, sizes = on_disk(filled)
    parts = dict(zip(names, (int(size.replace(",", "")) for size in sizes), strict=True))
    assert 0.9 * 2 * real.dimension < parts["vectors"] <= 2 * real.dimension  # equal texts are kept once
    assert 0.9 < parts["codes"] / np.mean([codes.nbytes for codes in real.step(0, 120).codes]) < 1.1
    others = sum(size for name, size in parts.items() if name not in {"text", "all but the text"})
    assert parts["all but the text"] == pytest.approx(others, abs=len(parts))


def test_times_are_those_of_each_call():
    found, times = timed(lambda value: value + 1, [1, 2, 3])
    assert found == [2, 3, 4]
    assert len(times.wall) == len(times.processor) == len(times.cells()) == 3
