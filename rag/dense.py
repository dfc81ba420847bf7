"""The dense index: owns FAISS. Inner product of unit vectors, so that a score is a cosine in [-1, 1].

Sealed rows are in a FAISS index (exact while small, then an inverted file whose measured recall stands in the
manifest), the tail is searched exactly in NumPy. `exact_search` is the plain twin that judges both.
Knows no text and no model: vectors come from the catalog.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.catalog import Catalog
from rag.errors import IndexDamaged, Misconfigured
from rag.lifecycle import STEP, DerivedIndex
from rag.protocols import Hits, Rows, Vectors
from rag.settings import IndexSettings

Mask = np.ndarray[Any, np.dtype[np.bool_]]
INDEX_FILE = "index.faiss"
#: Queries with which the recall of an approximate part is measured.
PROBES = 200


@dataclass(frozen=True, slots=True)
class DensePart:
    """An opened sealed part: a FAISS index whose ids are positions, and how many lists to probe (0: it is exact)."""

    index: Any
    nprobe: int


class DenseIndex(DerivedIndex[DensePart, Vectors]):
    """The vectors of one collection under one embedder; the query is a unit vector of shape (dimension,)."""

    kind = "dense"

    def __init__(
        self, catalog: Catalog, collection_id: str, embedder: str, dimension: int, folder: Path, settings: IndexSettings
    ) -> None:
        self._dimension = dimension
        self._faiss = import_faiss()
        super().__init__(catalog, collection_id, embedder, folder, settings)

    def search(self, query: Vectors, k: int, allowed: Rows | None = None) -> Hits:
        """See `rag.protocols.Index`."""
        now = self.current()
        sealed = self._search_sealed(
            now.part, now.sealed_seqs, within(now.sealed_seqs, now.sealed_alive, allowed), query, k
        )
        tail = exact_search(now.tail, now.tail_seqs, within(now.tail_seqs, now.tail_alive, allowed), query, k)
        return merge(sealed, tail, k)

    def _search_sealed(self, part: DensePart | None, seqs: Rows, mask: Mask, query: Vectors, k: int) -> Hits:
        count = int(mask.sum())
        if part is None or count == 0:
            return no_hits()
        options: dict[str, Any] = {}
        if count < len(seqs):
            bits = np.packbits(mask, bitorder="little")
            options["sel"] = self._faiss.IDSelectorBitmap(len(seqs), self._faiss.swig_ptr(bits))
        if part.nprobe:
            # A filter may leave its rows in lists that would not be probed: then every list is.
            nprobe = part.nprobe if "sel" not in options or count * 2 > len(seqs) else part.index.nlist
            parameters = self._faiss.SearchParametersIVF(nprobe=nprobe, **options)
        else:
            parameters = self._faiss.SearchParameters(**options)
        scores, positions = part.index.search(query[None, :], min(k, count), params=parameters)
        found = positions[0] >= 0
        return ordered(seqs[positions[0][found]], scores[0][found])

    # -- life cycle --------------------------------------------------------------------------------------------------

    def _empty_tail(self) -> Vectors:
        return np.zeros((0, self._dimension), dtype=np.float32)

    def _grown_tail(self, tail: Vectors, after: int, last: int) -> tuple[Rows, Vectors]:
        seqs, new = self._rows(after, last)
        return seqs, np.concatenate([tail, new])

    def _rows(self, after: int, last: int) -> tuple[Rows, Vectors]:
        """Fetch rows step by step, so that no more than one step is in memory twice."""
        seqs: list[Rows] = [np.zeros(0, dtype=np.int64)]
        parts: list[Vectors] = [np.zeros((0, self._dimension), dtype=np.float32)]
        for start in range(after, last, STEP):
            found, vectors = self._catalog.vector_rows(self._collection_id, self._space, start, min(start + STEP, last))
            if len(found):
                seqs.append(found)
                parts.append(vectors)
        return np.concatenate(seqs), np.concatenate(parts)

    def _write_part(self, folder: Path, last: int) -> tuple[Rows, dict[str, Any]]:
        seqs, vectors = self._rows(0, last)
        if len(seqs) <= self._settings.flat_rows:
            index, facts = self._faiss.IndexFlatIP(self._dimension), {"index": "flat", "nprobe": 0, "recall@10": 1.0}
            index.add(vectors)
        else:
            index, facts = self._inverted_file(vectors)
        try:
            self._faiss.write_index(index, str(folder / INDEX_FILE))
        except RuntimeError as error:  # which is how FAISS says that the disk takes no more
            raise OSError(errno.EIO, "FAISS can not write it") from error
        return seqs, {"dimension": self._dimension, **facts}

    def _inverted_file(self, vectors: Vectors) -> tuple[Any, dict[str, Any]]:
        """Build an inverted file, and probe as many lists as the recall asked for needs."""
        lists = int(4 * np.sqrt(len(vectors)))
        index = self._faiss.IndexIVFFlat(
            self._faiss.IndexFlatIP(self._dimension), self._dimension, lists, self._faiss.METRIC_INNER_PRODUCT
        )
        random = np.random.default_rng(0)
        index.train(vectors[random.permutation(len(vectors))[: 50 * lists]])
        index.add(vectors)
        # Half way between two passages: like a passage, but none that is stored.
        pairs = random.integers(0, len(vectors), size=(PROBES, 2))
        queries = vectors[pairs[:, 0]] + vectors[pairs[:, 1]]
        exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
        nprobe, recall = 1, 0.0
        while recall < self._settings.min_recall and nprobe < lists:
            nprobe = min(nprobe * 2, lists)
            index.nprobe = nprobe
            _, found = index.search(queries, 10)
            recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]))
        return index, {"index": f"ivf{lists},flat", "nprobe": nprobe, "recall@10": round(recall, 4)}

    def _open_part(self, folder: Path, manifest: Mapping[str, Any]) -> DensePart:
        try:
            index = self._faiss.read_index(str(folder / INDEX_FILE), self._faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise IndexDamaged("FAISS can not read it.") from error
        if (index.ntotal, index.d) != (manifest["rows"], self._dimension):
            raise IndexDamaged(f"It holds {index.ntotal} rows of {index.d} dimensions.")
        return DensePart(index, int(manifest["nprobe"]))


def import_faiss() -> Any:
    """Return the FAISS module; raise `Misconfigured` with the cure if it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise Misconfigured(
            "FAISS is not installed; run `pip install citewell[cpu]`, or `citewell[gpu]` where there is an NVIDIA GPU."
        ) from error
    return faiss


def exact_search(vectors: Vectors, seqs: Rows, mask: Mask, query: Vectors, k: int) -> Hits:
    """Return the ``k`` best rows under ``mask`` (n,), comparing ``query`` (d,) with every row of ``vectors`` (n, d)."""
    positions = np.flatnonzero(mask)
    return top(seqs[positions], (vectors @ query)[positions], k)


def within(seqs: Rows, alive: Mask, allowed: Rows | None) -> Mask:
    """Return the mask of rows that are alive and, if ``allowed`` (sorted) is given, in it."""
    if allowed is None:
        return alive
    if not len(allowed):
        return np.zeros_like(alive)
    places = np.minimum(np.searchsorted(allowed, seqs), len(allowed) - 1)
    mask: Mask = alive & (allowed[places] == seqs)
    return mask


def top(seqs: Rows, scores: np.ndarray[Any, np.dtype[np.float32]], k: int) -> Hits:
    """Return the ``k`` best of parallel arrays, best first, equal scores in the order of their numbers."""
    if len(scores) > k:
        # Everything that ties with the last place stays in until the order by number has been applied.
        bar = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= bar)
        seqs, scores = seqs[kept], scores[kept]
    return ordered(seqs, scores, k)


def ordered(seqs: Rows, scores: np.ndarray[Any, np.dtype[np.float32]], k: int | None = None) -> Hits:
    order = np.lexsort((seqs, -scores))[:k]
    return Hits(seqs[order], scores[order].astype(np.float32))


def merge(a: Hits, b: Hits, k: int) -> Hits:
    """Return the ``k`` best of two lists of hits that have no row in common."""
    return top(np.concatenate([a.seqs, b.seqs]), np.concatenate([a.scores, b.scores]), k)


def no_hits() -> Hits:
    return Hits(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
