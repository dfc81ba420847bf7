"""Plan to passages: candidates from the dense and the lexical index, fused, weighed by late interaction, reranked.

Each part can be switched off by the plan, see `rag.records.Parts`. Knows indexes, the embedder and the reranker by
their protocols, and the catalog for what a row says. Knows no FAISS, no BM25 and no generator.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from rag.catalog import Catalog, wrong_embedder
from rag.hop import BEST, hopped, names_of
from rag.interaction import Interaction
from rag.late import weighted
from rag.protocols import Embedder, Encoding, Hits, Index, LexicalIndex, Reranker, TokenVectors, Vectors
from rag.records import Collection, Copy, Passage, Plan, Ranking
from rag.settings import RetrievalSettings
from rag.surroundings import diversified, surrounded

#: A row of the catalog: collection id and sequence number.
Key = tuple[str, int]
Scores = Mapping[Key, float]
T = TypeVar("T")
#: Scores that differ by less do so by how they were added up.
SAME = 1e-6
#: Candidates that late interaction has not looked at have scores from 0 to here, the others from here to 1.
LOOKED_AT = 0.25


@dataclass(frozen=True, slots=True)
class Indexes:
    """The derived indexes of one collection."""

    dense: Index[Vectors]
    lexical: LexicalIndex


def min_max(scores: Mapping[Key, float]) -> dict[Key, float]:
    """Stretch scores linearly so that the worst is 0 and the best is 1; all equal scores become 1."""
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    return {key: (score - low) / (high - low) if high - low > SAME else 1.0 for key, score in scores.items()}


def fuse(dense: Mapping[Key, float], lexical: Mapping[Key, float], dense_weight: float) -> dict[Key, float]:
    """Return the weighted min-max sum of two lists of scores, in [0, 1]; who is missing from a list gets its worst, 0.

    The combination of Lee, "Analyses of multiple evidence combination" (SIGIR 1997), with CombSUM.
    """
    a, b = min_max(dense), min_max(lexical)
    return {key: dense_weight * a.get(key, 0.0) + (1 - dense_weight) * b.get(key, 0.0) for key in {**a, **b}}


def joined(fused: Mapping[Key, float], looked_at: Sequence[Key], late: Mapping[Key, float], weight: float) -> Scores:
    """Return the scores of all candidates, in [0, 1], with late interaction for those that it has ``looked_at``.

    Among these both scores are stretched and summed; a row without codes keeps the first alone. The others keep their
    order behind them.
    """
    if not late:
        return fused
    first, second = min_max({key: fused[key] for key in looked_at}), min_max(late)
    rest = min_max({key: score for key, score in fused.items() if key not in first})
    ahead = {
        key: (1 - weight) * score + weight * second[key] if key in second else score for key, score in first.items()
    }
    return {key: LOOKED_AT + (1 - LOOKED_AT) * score for key, score in ahead.items()} | {
        key: LOOKED_AT * score for key, score in rest.items()
    }


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the first stages found: the scores of each, by row."""

    dense: Scores
    lexical: Scores
    fused: Scores


class Retriever:
    """Finds the passages for a plan. ``indexes_of`` opens the indexes of a collection."""

    def __init__(
        self,
        catalog: Catalog,
        embedder: Embedder,
        indexes_of: Callable[[Collection], Indexes],
        settings: RetrievalSettings,
        reranker: Reranker | None = None,
    ) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._indexes_of = indexes_of
        self._settings = settings
        self._reranker = reranker
        self._interaction = Interaction(catalog, embedder.fingerprint, embedder.dimension)

    def retrieve(self, plan: Plan) -> Ranking:
        """Return the ``plan.top_k`` best passages of all the plan's collections, best first.

        Raises `Misconfigured` if a collection was embedded with another embedder than the configured one.
        """
        clock = Clock()
        for collection in plan.collections:
            if collection.embedder not in {None, self._embedder.fingerprint}:
                raise wrong_embedder(str(collection.embedder), self._embedder.fingerprint)
        with clock.stage("embed"):
            asked = self._asked(plan)
        found = self._candidates(plan, asked, clock)
        parts: dict[str, Scores] = {"dense": found.dense, "lexical": found.lexical, "fused": found.fused}
        scores: Scores = found.fused
        if plan.parts.late and asked.tokens:
            with clock.stage("late"):
                best = by_score(found.fused)[: self._settings.late_candidates]
                weights, matches = self._matched(plan, asked.tokens[0], best)
                parts["late"] = {key: float(weighted(row[None], weights)[0]) for key, row in matches.items()}
                scores = joined(found.fused, best, parts["late"], self._settings.late_weight)
            if plan.parts.hop:
                with clock.stage("hop"):
                    scores = self._hopped(plan, scores, matches, weights)
        with clock.stage("read"):
            order = by_score(scores)
            ids = _by_key(self._catalog.chunk_ids, plan, order)  # without those that were retired since the search
            read = self._folded(plan, [key for key in order if key in ids])
        if plan.parts.rerank and self._reranker is not None:
            with clock.stage("rerank"):
                read, parts["reranked"] = self._reranked(self._reranker, plan, read)
                scores = parts["reranked"]
        if plan.diversity:
            with clock.stage("diversity"):
                read = self._diversified(plan, read, scores)
        read = read[: plan.top_k]
        ranked = [replace(passage, score=scores[key], scores=_scores(key, parts)) for key, passage in read]
        if plan.around or plan.section:
            with clock.stage("around"):
                ranked = [surrounded(self._catalog, p, plan.around, section=plan.section) for p in ranked]
        stages = {name: _ids(part, ids) for name, part in parts.items()}
        return Ranking(tuple(ranked), stages, clock.seconds)

    def _asked(self, plan: Plan) -> Encoding:
        """Return the question's vector, and its tokens where late interaction asks for them."""
        if not plan.parts.dense and not plan.parts.late:
            return Encoding(np.zeros((1, self._embedder.dimension), dtype=np.float32))
        return self._embedder.encode([plan.question], role="query", tokens=plan.parts.late)

    def _candidates(self, plan: Plan, asked: Encoding, clock: Clock) -> Candidates:
        dense: dict[Key, float] = {}
        lexical: dict[Key, float] = {}
        for collection in plan.collections:
            indexes = self._indexes_of(collection)
            allowed = self._catalog.allowed_rows(collection.id, plan.filters)
            if plan.parts.dense:
                with clock.stage("dense"):
                    dense |= _keyed(collection, indexes.dense.search(asked.vectors[0], plan.candidates, allowed))
            if plan.parts.lexical:
                with clock.stage("lexical"):
                    lexical |= _keyed(collection, indexes.lexical.search(plan.question, plan.candidates, allowed))
        with clock.stage("fuse"):
            return Candidates(dense, lexical, fuse(dense, lexical, self._settings.dense_weight))

    def _matched(self, plan: Plan, tokens: TokenVectors, best: Sequence[Key]) -> tuple[Vectors, Mapping[Key, Vectors]]:
        """Return the weights of the question's tokens, and how each is matched by those candidates that have codes."""
        by_id = {collection.id: self._indexes_of(collection).lexical for collection in plan.collections}
        weights = self._interaction.weights(plan.question, tokens.spans, list(by_id.values()))
        settle, most = self._interaction.settle_figures, plan.candidates

        def matches(owner: str, seqs: Sequence[int]) -> Mapping[int, Vectors]:
            found = self._interaction.matches(owner, tokens, seqs)
            settle(plan.question, tokens.spans, found, by_id[owner], most)
            return found

        return weights, _by_key(matches, plan, best)

    def _hopped(self, plan: Plan, scores: Scores, matches: Mapping[Key, Vectors], weights: Vectors) -> Scores:
        """Return the scores with what the second hop adds to them."""
        order = [key for key in by_score(scores) if key in matches]
        names = {key: names_of(*found) for key, found in _by_key(self._catalog.names, plan, order).items()}
        read = _by_key(self._catalog.passages, plan, order[:BEST])
        texts = {key: passage.text for key, passage in read.items()}
        return hopped(scores, [key for key in order if key in names], texts, names, matches, weights)

    def _reranked(
        self, reranker: Reranker, plan: Plan, read: Sequence[tuple[Key, Passage]]
    ) -> tuple[list[tuple[Key, Passage]], dict[Key, float]]:
        """Return passages in the order of the cross-encoder, and its scores."""
        scores = reranker.score(plan.question, [passage.indexed_text for _, passage in read])
        scored = {key: score for (key, _), score in zip(read, scores, strict=True)}
        return sorted(read, key=lambda item: (-scored[item[0]], item[0])), scored

    def _diversified(
        self, plan: Plan, read: Sequence[tuple[Key, Passage]], scores: Scores
    ) -> list[tuple[Key, Passage]]:
        """Return the best passages that also differ from each other, see `rag.surroundings`."""
        keys = [key for key, _ in read]
        space = self._embedder.fingerprint
        vectors = _by_key(lambda owner, seqs: self._catalog.vectors(owner, space, seqs), plan, keys)
        none = np.zeros(self._embedder.dimension, dtype=np.float32)
        relevance = min_max({key: scores[key] for key in keys})
        matrix = np.array([vectors.get(key, none) for key in keys], dtype=np.float32).reshape(len(keys), -1)
        chosen = diversified([relevance[key] for key in keys], matrix, plan.diversity, plan.top_k)
        return [read[position] for position in chosen]

    def _folded(self, plan: Plan, order: Sequence[Key]) -> list[tuple[Key, Passage]]:
        """Return the first passages of ``order`` that are no copies of one before them: as many as are wanted.

        A passage names its copies among those read in ``also_in``. More are read until there are enough that differ.
        """
        found: dict[tuple[str, int], tuple[Key, Passage]] = {}
        reads_more = plan.diversity > 0 or (plan.parts.rerank and self._reranker is not None)
        wanted = max(plan.top_k, self._settings.rerank_candidates) if reads_more else plan.top_k
        step = 2 * wanted
        for start in range(0, len(order), step):
            read = _by_key(self._catalog.passages, plan, order[start : start + step])
            for key in order[start : start + step]:
                if (passage := read.get(key)) is None:
                    continue
                group = (passage.collection_id, passage.like_id or -passage.seq)
                if group in found:
                    first, best = found[group]
                    found[group] = first, replace(best, also_in=(*best.also_in, as_copy(passage, best)))
                elif len(found) < wanted:
                    found[group] = key, passage
            if len(found) == wanted:
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


def by_score(scores: Scores) -> list[Key]:
    """Return rows best first, those of equal score in their order."""
    return sorted(scores, key=lambda key: (-scores[key], key))


def _scores(key: Key, parts: Mapping[str, Scores]) -> dict[str, float]:
    return {name: part[key] for name, part in parts.items() if key in part and name != "fused"}


def _ids(part: Scores, ids: Mapping[Key, str]) -> tuple[str, ...]:
    return tuple(ids[key] for key in by_score(part) if key in ids)
