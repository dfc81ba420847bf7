"""Sealed vectors: which index is chosen, what a filter finds, what is measured, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from rag.dense import exact_search
from rag.errors import IndexDamaged, Misconfigured
from rag.gpu_vectors import GpuVectors, on_gpu
from rag.sealed_vectors import (
    INDEX_FILE,
    VECTORS_FILE,
    chosen_index,
    import_faiss,
    nearest,
    open_vectors,
    scored,
    write_vectors,
)
from rag.settings import IndexSettings
from tests.contracts.strategies import unit

ROWS, DIMENSION = 6_000, 32
KINDS = {
    "flat": {"kind": "flat"},
    "ivf:sq8": {"kind": "ivf", "codes": "sq8"},
    "ivf:sq4": {"kind": "ivf", "codes": "sq4"},
    "ivf:rabitq": {"kind": "ivf", "codes": "rabitq"},
    "hnsw": {"kind": "hnsw"},
}


@pytest.fixture(scope="module")
def rows():
    """Vectors in clumps, as passages of documents are."""
    random = np.random.default_rng(3)
    middles = random.standard_normal((60, DIMENSION))
    clumps = middles[random.integers(0, 60, ROWS)] + 0.7 * random.standard_normal((ROWS, DIMENSION))
    return unit(clumps).astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def queries(rows):
    random = np.random.default_rng(4)
    return unit(rows[random.integers(0, ROWS, 60)] + 0.15 * random.standard_normal((60, DIMENSION)))


@pytest.fixture(scope="module", params=list(KINDS))
def made(request, rows, tmp_path_factory):
    """A part of each kind with its facts: made in steps of uneven sizes."""
    folder = tmp_path_factory.mktemp("part")
    rules = IndexSettings(flat_rows=100, min_recall=0.95, **KINDS[request.param])
    cuts = [0, 1, 1, 2_500, ROWS]
    steps = ((np.arange(a, b) + 1, rows[a:b]) for a, b in pairwise(cuts))
    seqs, facts = write_vectors(folder, steps, DIMENSION, rules)
    assert seqs.tolist() == list(range(1, ROWS + 1))
    return folder, {**facts, "rows": ROWS}


def opened(made):
    return open_vectors(*made, DIMENSION)


def test_recall_of_ten_is_as_recorded_and_scores_are_cosines(made, rows, queries):
    part, everything = opened(made), np.ones(ROWS, dtype=bool)
    exact = nearest(rows.astype(np.float16), queries)
    hits = [part.search(query, 10, everything, ROWS) for query in queries]
    recall = np.mean([np.isin(a, b.seqs).mean() for a, b in zip(exact, hits, strict=True)])
    assert made[1]["recall@10"] >= 0.95
    assert recall >= 0.93
    for query, found in zip(queries, hits, strict=True):
        np.testing.assert_allclose(found.scores, rows[found.seqs] @ query, atol=1e-5)
        assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("count", [1, 5, 40, 600])
def test_a_selective_filter_finds_exactly_what_the_twin_finds(made, rows, queries, count):
    """Recall is 1 and every score is the twin's, also when the rows lie far from the query."""
    part, random = opened(made), np.random.default_rng(count)
    for query in queries[:10]:
        for chosen in (random.permutation(ROWS)[:count], np.argsort(rows @ query)[:count]):
            mask = np.zeros(ROWS, dtype=bool)
            mask[chosen] = True
            hits = part.search(query, 20, mask, count)
            exact = exact_search(rows, np.arange(ROWS), mask, query, 20)
            assert hits.seqs.tolist() == exact.seqs.tolist()
            np.testing.assert_allclose(hits.scores, exact.scores, atol=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.75, 0.99])
def test_a_filter_that_leaves_many_rows_still_gives_k_of_them_and_the_best(made, rows, queries, share):
    """Where too many rows are left to score them all, the index is searched among them."""
    part = replace(opened(made), scored_at_once=100)
    mask = np.random.default_rng(5).random(ROWS) < share
    recalls = []
    for query in queries:
        hits = part.search(query, 10, mask, int(mask.sum()))
        exact = exact_search(rows, np.arange(ROWS), mask, query, 10)
        assert len(hits.seqs) == 10
        assert mask[hits.seqs].all()
        recalls.append(np.isin(exact.seqs, hits.seqs).mean())
    assert np.mean(recalls) >= 0.93


def test_a_filter_in_lists_far_away_still_gives_k_rows(made, rows, queries):
    """All rows that the filter leaves lie where a search without it would not look."""
    part, query = replace(opened(made), scored_at_once=100), queries[0]
    mask = np.zeros(ROWS, dtype=bool)
    mask[np.argsort(rows @ query)[:1500]] = True
    hits = part.search(query, 10, mask, 1500)
    assert len(hits.seqs) == 10
    assert mask[hits.seqs].all()


def test_more_rows_than_there_are_gives_all(made, queries):
    part = opened(made)
    assert len(part.search(queries[0], 10 * ROWS, np.ones(ROWS, dtype=bool), ROWS).seqs) == ROWS


def test_what_is_damaged_is_refused(made, tmp_path):
    """A missing file, other counts and cut off vectors raise `IndexDamaged`, whatever the kind."""
    folder, facts = made
    with pytest.raises(IndexDamaged):
        open_vectors(folder, {**facts, "rows": ROWS - 1}, DIMENSION)
    with pytest.raises(IndexDamaged):
        open_vectors(tmp_path, facts, DIMENSION)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 200 if file.name == VECTORS_FILE else None])
    if facts["index"] != "flat":
        with pytest.raises(IndexDamaged):
            open_vectors(tmp_path, facts, DIMENSION)


def test_a_flat_part_keeps_no_second_copy(made):
    assert (made[0] / VECTORS_FILE).exists() == (made[1]["index"] != "flat")
    assert (made[0] / INDEX_FILE).exists()


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [
        ({}, 10_000, ("flat", "")),
        ({}, 10_001, ("ivf", "rabitq")),
        ({"memory_bytes": 1544 * 10_000 - 1}, 10_000, ("ivf", "rabitq")),
        ({"codes": "sq8", "memory_bytes": 392 * 20_000}, 20_000, ("ivf", "sq8")),
        ({"codes": "sq8", "memory_bytes": 392 * 20_000 - 1}, 20_000, ("ivf", "rabitq")),
        ({"codes": "sq4"}, 20_000, ("ivf", "sq4")),
        ({"kind": "hnsw"}, 500, ("hnsw", "sq8")),
        ({"kind": "hnsw", "memory_bytes": 1 << 20}, 20_000, ("ivf", "rabitq")),
        ({"kind": "flat"}, 100_000, ("flat", "")),
        ({"kind": "flat"}, 10**7, ("ivf", "rabitq")),
        ({"kind": "ivf"}, 20, ("flat", "")),
    ],
)
def test_the_index_is_chosen_by_size_and_memory(given, count, expected):
    """Exact while small, then codes of 1 bit; the settings may say otherwise within their budget of memory."""
    *chosen, why = chosen_index(IndexSettings(**given), count, 384)
    assert tuple(chosen) == expected
    assert why


def test_no_rows_make_a_part_that_finds_nothing(tmp_path):
    seqs, facts = write_vectors(tmp_path, iter(()), DIMENSION, IndexSettings())
    part = open_vectors(tmp_path, {**facts, "rows": 0}, DIMENSION)
    assert len(seqs) == 0
    assert len(part.search(np.ones(DIMENSION, dtype=np.float32), 5, np.ones(0, dtype=bool), 0).seqs) == 0


def test_rescoring_goes_through_many_rows_in_steps(rows, queries):
    positions = np.arange(0, ROWS, 60)
    hits = scored(rows.astype(np.float16), positions, queries[0], 5, step=7)
    order = positions[np.argsort(-(rows[positions] @ queries[0]))[:5]]
    assert hits.seqs.tolist() == order.tolist()


def test_a_gpu_that_is_not_there_is_a_clear_refusal(made):
    """`index.device = cuda` on a machine without one names the cure."""
    faiss = import_faiss()
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(Misconfigured, match=r"set index\.device to cpu"):
        on_gpu(opened(made), IndexSettings(device="cuda"))


@pytest.mark.parametrize("gpu_kind", ["flat", "ivf", "cagra"])
def test_the_gpu_finds_what_the_cpu_finds_in_the_same_files(made, rows, queries, gpu_kind):
    """Each kind of index on the GPU, with and without a filter; skipped where FAISS has no GPU."""
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        pytest.skip("the installed FAISS has no GPU, or there is none")
    if gpu_kind == "cagra" and not hasattr(faiss, "GpuIndexCagra"):
        with pytest.raises(Misconfigured, match="cuVS"):
            on_gpu(opened(made), IndexSettings(device="cuda", gpu_kind="cagra"))
        return
    part = on_gpu(opened(made), IndexSettings(device="cuda", gpu_kind=gpu_kind))
    assert isinstance(part, GpuVectors)
    everything, some = np.ones(ROWS, dtype=bool), np.arange(ROWS) % 3 == 0
    for mask in (everything, some):
        recalls = []
        for query in queries:
            hits = part.search(query, 10, mask, int(mask.sum()))
            exact = exact_search(rows, np.arange(ROWS), mask, query, 10)
            assert mask[hits.seqs].all()
            np.testing.assert_allclose(hits.scores, rows[hits.seqs] @ query, atol=2e-3)
            recalls.append(np.isin(exact.seqs, hits.seqs).mean())
        assert np.mean(recalls) >= 0.93
