"""Plan to passages: candidates from the dense and the lexical index, fused into one ranking.

Knows indexes and the embedder by their protocols, and the catalog for what a row says. Knows no FAISS, no BM25 and no
generator.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from rag.catalog import Catalog, wrong_embedder
from rag.protocols import Embedder, Hits, Index, Vectors
from rag.records import Collection, Copy, Passage, Plan, Ranking

#: A row of the catalog: collection id and sequence number.
Key = tuple[str, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Indexes:
    """The derived indexes of one collection."""

    dense: Index[Vectors]
    lexical: Index[str]


def min_max(scores: Mapping[Key, float]) -> dict[Key, float]:
    """Stretch scores linearly so that the worst is 0 and the best is 1; all equal scores become 1."""
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    return {key: (score - low) / (high - low) if high > low else 1.0 for key, score in scores.items()}


def fuse(dense: Mapping[Key, float], lexical: Mapping[Key, float], dense_weight: float) -> dict[Key, float]:
    """Return the weighted min-max sum of two lists of scores, in [0, 1]; who is missing from a list gets its worst, 0.

    The combination of Lee, "Analyses of multiple evidence combination" (SIGIR 1997), with CombSUM.
    """
    a, b = min_max(dense), min_max(lexical)
    return {key: dense_weight * a.get(key, 0.0) + (1 - dense_weight) * b.get(key, 0.0) for key in {**a, **b}}


class Retriever:
    """Finds the passages for a plan. ``indexes_of`` opens the indexes of a collection."""

    def __init__(
        self,
        catalog: Catalog,
        embedder: Embedder,
        indexes_of: Callable[[Collection], Indexes],
        dense_weight: float,
    ) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._indexes_of = indexes_of
        self._dense_weight = dense_weight

    def retrieve(self, plan: Plan) -> Ranking:
        """Return the ``plan.top_k`` best passages of all the plan's collections, best first.

        Raises `Misconfigured` if a collection was embedded with another embedder than the configured one.
        """
        clock = Clock()
        for collection in plan.collections:
            if collection.embedder not in {None, self._embedder.fingerprint}:
                raise wrong_embedder(str(collection.embedder), self._embedder.fingerprint)
        with clock.stage("embed"):
            query = self._embedder.encode([plan.question], role="query").vectors[0]
        dense: dict[Key, float] = {}
        lexical: dict[Key, float] = {}
        for collection in plan.collections:
            indexes = self._indexes_of(collection)
            allowed = self._catalog.allowed_rows(collection.id, plan.filters)
            with clock.stage("dense"):
                dense |= _keyed(collection, indexes.dense.search(query, plan.candidates, allowed))
            with clock.stage("lexical"):
                lexical |= _keyed(collection, indexes.lexical.search(plan.question, plan.candidates, allowed))
        with clock.stage("fuse"):
            fused = fuse(dense, lexical, self._dense_weight)
            order = sorted(fused, key=lambda key: (-fused[key], key))
        with clock.stage("read"):
            ids = _by_key(self._catalog.chunk_ids, plan, order)  # without those that were retired since the search
            folded = self._folded(plan, [key for key in order if key in ids])
        ranked = [
            replace(passage, score=fused[key], scores=_scores(key, dense=dense, lexical=lexical))
            for key, passage in folded
        ]
        stages = {name: _ids(part, ids) for name, part in (("dense", dense), ("lexical", lexical), ("fused", fused))}
        return Ranking(tuple(ranked), stages, clock.seconds)

    def _folded(self, plan: Plan, order: Sequence[Key]) -> list[tuple[Key, Passage]]:
        """Return the first ``plan.top_k`` passages of ``order`` that are no copies of one before them.

        A passage names its copies among those read in ``also_in``. More are read until there are enough that differ.
        """
        found: dict[tuple[str, int], tuple[Key, Passage]] = {}
        step = 2 * plan.top_k
        for start in range(0, len(order), step):
            read = _by_key(self._catalog.passages, plan, order[start : start + step])
            for key in order[start : start + step]:
                if (passage := read.get(key)) is None:
                    continue
                group = (passage.collection_id, passage.like_id or -passage.seq)
                if group in found:
                    first, best = found[group]
                    found[group] = first, replace(best, also_in=(*best.also_in, as_copy(passage, best)))
                elif len(found) < plan.top_k:
                    found[group] = key, passage
            if len(found) == plan.top_k:
                break
        return list(found.values())


def as_copy(passage: Passage, of: Passage) -> Copy:
    """Return ``passage`` as a copy of another."""
    exact = passage.indexed_text == of.indexed_text
    return Copy(passage.chunk_id, passage.document_id, passage.document, passage.version, passage.page, exact)


class Clock:
    """Adds up the seconds of named stages. Thread-safe."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, seconds: float) -> None:
        """Add to a stage what was measured elsewhere."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)


def _by_key(look_up: Callable[[str, Sequence[int]], Mapping[int, T]], plan: Plan, keys: Sequence[Key]) -> dict[Key, T]:
    """Return what ``look_up`` finds for the rows of ``keys``, asked once for each collection of the plan."""
    return {
        (collection.id, seq): found
        for collection in plan.collections
        for seq, found in look_up(collection.id, [seq for owner, seq in keys if owner == collection.id]).items()
    }


def _keyed(collection: Collection, hits: Hits) -> dict[Key, float]:
    return {(collection.id, int(s)): float(x) for s, x in zip(hits.seqs, hits.scores, strict=True)}


def _scores(key: Key, **parts: Mapping[Key, float]) -> dict[str, float]:
    return {name: part[key] for name, part in parts.items() if key in part}


def _ids(part: Mapping[Key, float], ids: Mapping[Key, str]) -> tuple[str, ...]:
    best_first = sorted(part, key=lambda key: (-part[key], key))
    return tuple(ids[key] for key in best_first if key in ids)
