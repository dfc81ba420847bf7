"""Sealed vectors: owns FAISS. Which index a number of rows gets, how it is made, opened and searched.

    flat   every vector in float32, exact: while that is fast
    ivf    an inverted file: rows in lists around centroids, as codes of 1 bit (rabitq; Gao and Long, SIGMOD 2024), of
           4 bits (sq4) or of 8 bits (sq8) a dimension; a search reads the lists nearest to the query
    hnsw   a graph over codes of 8 bits (Malkov and Yashunin, TPAMI 2020): fast to search, by far the slowest to make

The two approximate ones only name candidates: those are scored again from ``vectors.npy``, all vectors in float16 in
the order of the rows, so that a score is a cosine. How many lists are read, and how many candidates are scored again,
is measured against the exact search when the part is made, and stands in the manifest with the recall. A filter that
leaves few rows is answered from ``vectors.npy`` alone, exactly. All files are mapped into memory, and so are shared
between processes.

Knows no catalog and no tail; rows are positions from 0.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rag.errors import IndexDamaged, Misconfigured
from rag.hits import Mask, no_hits, top
from rag.protocols import Hits, Rows, Vectors
from rag.settings import IndexSettings

INDEX_FILE = "index.faiss"
VECTORS_FILE = "vectors.npy"
#: Queries with which the recall of an approximate part is measured, and how many of their neighbours.
PROBES, NEIGHBOURS = 200, 10
#: So many rows that a filter leaves are all scored; a share of all rows below which every list is read.
SCORED_AT_ONCE, SPARSE = 4_000, 0.1
#: Vectors that training sees for each centroid, and rows that are in float32 at one time.
SAMPLE, STEP = 64, 20_000
#: Least and most candidates scored again, and how many for each row asked for; most neighbours that a graph keeps.
FEWEST_RESCORED, MOST_RESCORED, RESCORED_EACH, MOST_KEPT = 50, 1600, 3, 1024
#: Bits of a dimension of the query when it is compared with codes of 1 bit; 8 find no more, float32 is far slower.
QUERY_BITS = 4
#: So many times the lists are read that the probes need: real questions, further from every passage, need them.
MARGIN = 1.5
#: Links of a row in the graph; rows below which nothing but the exact index makes sense.
LINKS, SMALLEST = 32, 100

Halves = np.ndarray[Any, np.dtype[np.float16]]


class Searched(Protocol):
    """A sealed part, wherever it lies."""

    def search(self, query: Vectors, k: int, mask: Mask, count: int) -> Hits:
        """Return the ``k`` best of the ``count`` positions that are True in ``mask``, as hits of positions."""
        ...


@dataclass(frozen=True, slots=True)
class SealedVectors:
    """An opened part: a FAISS index whose ids are positions, and the vectors that candidates are scored from again.

    ``effort`` is how many lists a search reads (ivf) or how many neighbours it keeps (hnsw), ``rescored`` how many
    candidates at least are scored again. Without ``vectors`` the index is exact. Where a filter leaves at most
    ``scored_at_once`` rows, all of them are scored.
    """

    faiss: Any
    index: Any
    kind: str
    effort: int = 0
    rescored: int = 0
    vectors: Halves | None = None
    scored_at_once: int = SCORED_AT_ONCE

    def search(self, query: Vectors, k: int, mask: Mask, count: int) -> Hits:
        """See `Searched`."""
        k = min(k, count)
        if not k:
            return no_hits()
        if self.vectors is not None and count <= max(self.scored_at_once, k):
            return scored(self.vectors, np.flatnonzero(mask), query, k)
        wanted = k if self.vectors is None else min(count, max(self.rescored, RESCORED_EACH * k))
        share = count / len(mask)
        bits = np.packbits(mask, bitorder="little") if share < 1 else None
        with one_thread(self.faiss):
            found = self._candidates(query, wanted, bits, share)
            if len(found[0]) < k:
                found = self._candidates(query, wanted, bits, 0.0)
        if self.vectors is None:
            return top(*found, k)
        if len(found[0]) < k:  # a graph that a filter has cut apart
            return scored(self.vectors, np.flatnonzero(mask), query, k)
        return scored(self.vectors, np.sort(found[0]), query, k)

    def _candidates(
        self, query: Vectors, wanted: int, bits: np.ndarray[Any, Any] | None, share: float
    ) -> tuple[Rows, Vectors]:
        """Return positions and scores by the index, of those in ``bits``, a ``share`` of all rows."""
        chosen: dict[str, Any] = {}
        if bits is not None:
            chosen["sel"] = self.faiss.IDSelectorBitmap(len(bits), self.faiss.swig_ptr(bits))
        if self.kind == "ivf":
            lists = self.index.nlist if share < SPARSE else min(self.index.nlist, int(self.effort / share) + 1)
            parameters = self.faiss.SearchParametersIVF(nprobe=lists, **chosen)
        elif self.kind == "hnsw":
            kept = max(self.effort, wanted) if bits is None else max(MOST_KEPT, 2 * wanted)
            parameters = self.faiss.SearchParametersHNSW(efSearch=kept, **chosen)
        else:
            parameters = self.faiss.SearchParameters(**chosen)
        scores, positions = self.index.search(query[None, :], wanted, params=parameters)
        there = positions[0] >= 0
        return positions[0][there], scores[0][there]


# -- making ----------------------------------------------------------------------------------------------------------


def write_vectors(
    folder: Path, steps: Iterable[tuple[Rows, Vectors]], dimension: int, rules: IndexSettings
) -> tuple[Rows, dict[str, Any]]:
    """Write the files of a part from ``steps`` of rows; return the numbers of the rows and facts for the manifest.

    Never more than a step and the sample for training are in memory as float32. Raises `OSError` for a full disk.
    """
    faiss = import_faiss()
    seqs = [np.zeros(0, dtype=np.int64)]
    with (folder / VECTORS_FILE).open("wb") as out:
        _write_head(out, 0, dimension)
        for found, step in steps:
            seqs.append(found)
            out.write(step.astype("<f2").tobytes())
        out.seek(0)
        _write_head(out, sum(map(len, seqs)), dimension)
    rows = sum(map(len, seqs))
    vectors: Halves = open_halves(folder) if rows else np.zeros((0, dimension), dtype=np.float16)
    kind, codes, why = chosen_index(rules, rows, dimension)
    facts: dict[str, Any] = {"index": kind, "why": why, "effort": 0, "rescored": 0, "recall@10": 1.0}
    with threads(faiss, rules.seal_threads):
        if kind == "flat":
            index = faiss.IndexFlatIP(dimension)
            _add(index, vectors)
            (folder / VECTORS_FILE).unlink()  # they are all in the index
        else:
            index, measured = _approximate(faiss, kind, codes, vectors, rules)
            facts |= measured
        try:
            faiss.write_index(index, str(folder / INDEX_FILE))
        except RuntimeError as error:  # which is how FAISS says that the disk takes no more
            raise OSError(errno.EIO, "FAISS can not write it") from error
    return np.concatenate(seqs), {"dimension": dimension, **facts}


def chosen_index(rules: IndexSettings, rows: int, dimension: int) -> tuple[str, str, str]:
    """Return which index and which codes so many rows get by the settings, and why, in a few words.

    At equal recall codes of 1 bit are the fastest to search as well as the smallest, see ``eval/LOG.md``.
    """
    if rules.kind == "flat" or (rules.kind == "auto" and rows <= rules.flat_rows) or rows < SMALLEST:
        kind, codes, why = "flat", "", "so few rows are searched one by one"
    elif rules.kind == "hnsw":
        kind, codes, why = "hnsw", "sq8", "index.kind asks for it"
    elif rules.kind == "auto" and rules.codes == "auto":
        return "ivf", "rabitq", "more rows than index.flat_rows"
    else:
        kind, codes, why = "ivf", "rabitq" if rules.codes == "auto" else rules.codes, "the settings ask for it"
    needed = rows * _row_bytes(kind, codes, dimension)
    if needed > rules.memory_bytes:
        return "ivf", "rabitq", f"{kind} {codes} would take {needed:,} bytes, more than index.memory_bytes"
    return kind, codes, why


def _row_bytes(kind: str, codes: str, dimension: int) -> int:
    """Return about how many bytes of an index a row takes in memory, its number included."""
    size = {"": 4 * dimension, "sq8": dimension, "sq4": dimension // 2, "rabitq": dimension // 8 + 8}[codes]
    return size + (8 * LINKS + 24 if kind == "hnsw" else 8)


def _approximate(
    faiss: Any, kind: str, codes: str, vectors: Halves, rules: IndexSettings
) -> tuple[Any, dict[str, Any]]:
    """Build an inverted file or a graph, with the least effort that has the recall asked for."""
    random = np.random.default_rng(0)
    make = _inverted_file if kind == "ivf" else _graph
    index = make(faiss, codes, vectors, random)
    queries = probes(vectors, random)
    exact = nearest(vectors, queries)
    efforts = _efforts_ivf(index, vectors, queries, exact, rules) if kind == "ivf" else _raised(32, MOST_KEPT)
    part, recall = tuned(SealedVectors(faiss, index, kind, vectors=vectors), efforts, queries, exact, rules)
    shape = {"lists": index.nlist} if kind == "ivf" else {"links": LINKS}
    effort = {"effort": part.effort, "rescored": part.rescored, "recall@10": round(recall, 4)}
    return index, {"codes": codes, **shape, **effort}


def _inverted_file(faiss: Any, codes: str, vectors: Halves, random: np.random.Generator) -> Any:
    rows, dimension = vectors.shape
    lists = lists_for(rows)
    coarse = faiss.IndexFlatIP(dimension)
    if codes == "rabitq":
        index = faiss.IndexIVFRaBitQ(coarse, dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.qb = QUERY_BITS
    else:
        bits = faiss.ScalarQuantizer.QT_8bit if codes == "sq8" else faiss.ScalarQuantizer.QT_4bit
        index = faiss.IndexIVFScalarQuantizer(coarse, dimension, lists, bits, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical, index.cp.niter = True, 8
    index.cp.min_points_per_centroid = 1  # it would complain, on standard error, of small collections
    sample = np.sort(random.permutation(rows)[: SAMPLE * lists])
    index.train(vectors[sample].astype(np.float32))
    _add(index, vectors)
    return index


def _graph(faiss: Any, codes: str, vectors: Halves, random: np.random.Generator) -> Any:
    del codes
    rows, dimension = vectors.shape
    index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    index.train(vectors[np.sort(random.permutation(rows)[:100_000])].astype(np.float32))
    _add(index, vectors)
    return index


def lists_for(rows: int) -> int:
    """Return the number of lists: about twice the root of the rows, so that finding and reading lists cost alike."""
    return max(1, int(2 * np.sqrt(rows)))


def _add(index: Any, vectors: Halves) -> None:
    for start in range(0, len(vectors), STEP):
        index.add(vectors[start : start + STEP].astype(np.float32))


# -- measuring -------------------------------------------------------------------------------------------------------


def probes(vectors: Halves, random: np.random.Generator) -> Vectors:
    """Return queries that are like a passage, but none that is stored: half way between two passages.

    Real questions lie further out, see `MARGIN`.
    """
    pairs = random.integers(0, len(vectors), size=(2, PROBES))
    mixed = vectors[pairs[0]].astype(np.float32) + vectors[pairs[1]]
    queries: Vectors = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-6)
    return queries


def nearest(vectors: Halves, queries: Vectors) -> Rows:
    """Return the positions (q, n) of the nearest neighbours of each query, by comparing it with every row."""
    best = np.zeros((len(queries), 0), dtype=np.float32)
    found = np.zeros((len(queries), 0), dtype=np.int64)
    for start in range(0, len(vectors), STEP):
        scores = queries @ vectors[start : start + STEP].astype(np.float32).T
        width = min(NEIGHBOURS, scores.shape[1])
        here = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        best = np.concatenate([best, np.take_along_axis(scores, here, axis=1)], axis=1)
        found = np.concatenate([found, here + start], axis=1)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :NEIGHBOURS]
        best, found = np.take_along_axis(best, kept, axis=1), np.take_along_axis(found, kept, axis=1)
    return found


def recall_of(part: Searched, queries: Vectors, exact: Rows, rows: int) -> float:
    """Return the share of the exact neighbours that a part finds."""
    mask = np.ones(rows, dtype=bool)
    found = [part.search(query, exact.shape[1], mask, rows).seqs for query in queries]
    return float(np.mean([np.isin(some, a).mean() for some, a in zip(exact, found, strict=True)]))


def tuned(
    part: SealedVectors, efforts: Iterable[int], queries: Vectors, exact: Rows, rules: IndexSettings
) -> tuple[SealedVectors, float]:
    """Return the part with the least effort, then the fewest candidates, that has the recall asked for; and its recall.

    If none has, the one with the most of both.
    """
    rows, recall = part.index.ntotal, 0.0
    for effort in efforts:
        recall = 0.0
        for rescored in _raised(FEWEST_RESCORED, MOST_RESCORED):
            part = replace(part, effort=effort, rescored=rescored)
            before, recall = recall, recall_of(part, queries, exact, rows)
            if recall >= rules.min_recall or recall - before < 0.001:
                break  # more candidates do not help: more effort may
        if recall >= rules.min_recall:
            break
    return part, recall


def _efforts_ivf(index: Any, vectors: Halves, queries: Vectors, exact: Rows, rules: IndexSettings) -> Iterator[int]:
    """Yield how many lists to read: first so many that hold enough of the neighbours, then a quarter more each."""
    _, order = index.quantizer.search(queries, index.nlist)
    place = np.argsort(order, axis=1)  # of each list among those nearest to the query
    _, home = index.quantizer.search(vectors[exact.ravel()].astype(np.float32), 1)
    needed = np.take_along_axis(place, home.reshape(exact.shape), axis=1)
    first = int(MARGIN * (np.quantile(needed, rules.min_recall) + 1))
    yield from _raised(first, index.nlist, 1.25)


def _raised(first: int, last: int, times: float = 2.0) -> Iterator[int]:
    """Yield ``first``, then so many ``times`` as much each, and ``last`` at the end."""
    effort = min(first, last)
    while effort < last:
        yield effort
        effort = min(int(times * effort) + 1, last)
    yield last


# -- opening ---------------------------------------------------------------------------------------------------------


def open_vectors(folder: Path, manifest: Mapping[str, Any], dimension: int) -> SealedVectors:
    """Open the files that `write_vectors` wrote; raises `IndexDamaged` if they are not what they should be."""
    faiss = import_faiss()
    kind = str(manifest["index"])
    try:
        # An inverted file is mapped by the one flag, everything else by the other.
        flag = faiss.IO_FLAG_MMAP if kind == "ivf" else faiss.IO_FLAG_MMAP_IFC
        index = faiss.read_index(str(folder / INDEX_FILE), flag)
    except RuntimeError as error:
        raise IndexDamaged("FAISS can not read it.") from error
    if (index.ntotal, index.d) != (manifest["rows"], dimension):
        raise IndexDamaged(f"It holds {index.ntotal} rows of {index.d} dimensions.")
    vectors = open_halves(folder) if kind != "flat" else None
    if vectors is not None and vectors.shape != (manifest["rows"], dimension):
        raise IndexDamaged(f"Its vectors are {vectors.shape[0]} rows of {vectors.shape[1]} dimensions.")
    if kind == "ivf":
        faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0  # the pages come when they are read
    return SealedVectors(faiss, index, kind, int(manifest["effort"]), int(manifest["rescored"]), vectors)


def open_halves(folder: Path) -> Halves:
    """Map ``vectors.npy`` into memory."""
    try:
        vectors: Halves = np.load(folder / VECTORS_FILE, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise IndexDamaged(f"Its vectors can not be read: {error}.") from error
    return vectors


def scored(vectors: Halves, positions: Rows, query: Vectors, k: int, step: int = STEP) -> Hits:
    """Return the ``k`` best of some ``positions`` by their vectors, ``step`` of which are in memory at one time."""
    parts = [
        vectors[positions[start : start + step]].astype(np.float32) @ query
        for start in range(0, max(1, len(positions)), step)
    ]
    return top(positions, np.concatenate(parts), k)


def import_faiss() -> Any:
    """Return the FAISS module; raise `Misconfigured` with the cure if it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise Misconfigured(
            "FAISS is not installed; run `pip install citewell[cpu]`, or `citewell[gpu]` where there is an NVIDIA GPU."
        ) from error
    return faiss


@contextmanager
def threads(faiss: Any, count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads for what the calling thread asks of it."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def one_thread(faiss: Any) -> Any:
    """One query is soonest answered by one thread, and leaves the others to other queries."""
    return threads(faiss, 1)


def _write_head(out: Any, rows: int, dimension: int) -> None:
    """Write the head of a .npy file, which has room for any number of rows."""
    np.lib.format.write_array_header_1_0(out, {"descr": "<f2", "fortran_order": False, "shape": (rows, dimension)})
