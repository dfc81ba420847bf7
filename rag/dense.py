"""The dense index: inner product of unit vectors, so that a score is a cosine in [-1, 1].

Sealed rows are searched by FAISS (`rag.sealed_vectors`), the tail is searched exactly in NumPy. `exact_search` is the
plain twin that judges both. Knows no text and no model: vectors come from the catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.catalog import Catalog
from rag.gpu_vectors import on_gpu
from rag.hits import Mask, merge, no_hits, top, within
from rag.lifecycle import STEP, DerivedIndex
from rag.protocols import Hits, Rows, Vectors
from rag.sealed_vectors import Searched, import_faiss, open_vectors, write_vectors
from rag.settings import IndexSettings


@dataclass(frozen=True, slots=True)
class DenseTail:
    """The vectors after the seal: the first ``size`` rows of ``room``, which older snapshots share.

    What was appended since lies beyond their size.
    """

    size: int
    room: Vectors

    @property
    def vectors(self) -> Vectors:
        return self.room[: self.size]

    def grown(self, new: Vectors) -> DenseTail:
        """Return a tail with ``new`` (n, dimension) behind; copies what is there only when the room is used up."""
        size, room = self.size + len(new), self.room
        if size > len(room):
            room = np.empty((max(size, 2 * len(room)), new.shape[1]), dtype=np.float32)
            room[: self.size] = self.vectors
        room[self.size : size] = new
        return DenseTail(size, room)

    @classmethod
    def empty(cls, dimension: int) -> DenseTail:
        """Return a tail without rows."""
        return cls(0, np.zeros((0, dimension), dtype=np.float32))

    def extended(self, steps: Iterable[tuple[Rows, Vectors]]) -> tuple[Rows, DenseTail]:
        """Return the numbers of the rows that ``steps`` bring, and a tail with their vectors behind."""
        seqs, tail = [np.zeros(0, dtype=np.int64)], self
        for found, vectors in steps:
            seqs.append(found)
            tail = tail.grown(vectors)
        return np.concatenate(seqs), tail


class DenseIndex(DerivedIndex[Searched, DenseTail]):
    """The vectors of one collection under one embedder; the query is a unit vector of shape (dimension,)."""

    kind = "dense"

    def __init__(
        self, catalog: Catalog, collection_id: str, embedder: str, dimension: int, folder: Path, settings: IndexSettings
    ) -> None:
        self._dimension = dimension
        import_faiss()  # so that a missing one is known at the start
        super().__init__(catalog, collection_id, embedder, folder, settings)

    def search(self, query: Vectors, k: int, allowed: Rows | None = None) -> Hits:
        """See `rag.protocols.Index`."""
        now = self.current()
        query = np.ascontiguousarray(query, dtype=np.float32)
        sealed = self._search_sealed(
            now.part, now.sealed_seqs, within(now.sealed_seqs, now.sealed_alive, allowed), query, k
        )
        mask = within(now.tail_seqs, now.tail_alive, allowed)
        return merge(sealed, exact_search(now.tail.vectors, now.tail_seqs, mask, query, k), k)

    @staticmethod
    def _search_sealed(part: Searched | None, seqs: Rows, mask: Mask, query: Vectors, k: int) -> Hits:
        count = int(np.count_nonzero(mask))
        if part is None or not count:
            return no_hits()
        found = part.search(query, k, mask, count)
        return Hits(seqs[found.seqs], found.scores)

    # -- life cycle --------------------------------------------------------------------------------------------------

    def _empty_tail(self) -> DenseTail:
        return DenseTail.empty(self._dimension)

    def _grown_tail(self, tail: DenseTail, after: int, last: int) -> tuple[Rows, DenseTail]:
        return tail.extended(self._steps(after, last))

    def _steps(self, after: int, last: int) -> Iterator[tuple[Rows, Vectors]]:
        return vector_steps(self._catalog, self._collection_id, self._space, after, last)

    def _write_part(self, folder: Path, last: int) -> tuple[Rows, dict[str, Any]]:
        return write_vectors(folder, self._steps(0, last), self._dimension, self._settings)

    def _open_part(self, folder: Path, manifest: Mapping[str, Any]) -> Searched:
        part = open_vectors(folder, manifest, self._dimension)
        return part if self._settings.device == "cpu" else on_gpu(part, self._settings)


def vector_steps(
    catalog: Catalog, collection_id: str, embedder: str, after: int, last: int
) -> Iterator[tuple[Rows, Vectors]]:
    """Fetch the live rows in (after, last] step by step, so that no more than one step is in memory."""
    for start in range(after, last, STEP):
        found, vectors = catalog.vector_rows(collection_id, embedder, start, min(start + STEP, last))
        if len(found):
            yield found, vectors


def exact_search(vectors: Vectors, seqs: Rows, mask: Mask, query: Vectors, k: int) -> Hits:
    """Return the ``k`` best rows under ``mask`` (n,), comparing ``query`` (d,) with every row of ``vectors`` (n, d)."""
    scores = vectors @ query
    if mask.all():
        return top(seqs, scores, k)
    positions = np.flatnonzero(mask)
    return top(seqs[positions], scores[positions], k)
