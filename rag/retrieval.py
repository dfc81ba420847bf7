"""Plan to passages: candidates from the dense and the lexical index, fused, weighed by late interaction, reranked.

Where a plan has several queries, each is ranked like a question of its own, and the rankings are mixed (`rag.mixing`).

Each part can be switched off by the plan, see `rag.records.Parts`. Knows indexes, the embedder and the reranker by
their protocols, and the catalog for what a row says. Knows no FAISS, no BM25 and no generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from rag.catalog import Catalog, wrong_embedder
from rag.hop import BEST, hopped, names_of
from rag.interaction import Interaction
from rag.late import weighted
from rag.mixing import mixed
from rag.protocols import Embedder, Encoding, Hits, Index, LexicalIndex, Reranker, Role, TokenVectors, Vectors
from rag.queries import Query, QueryRole
from rag.reading import Key, Steps, Wanted, alone
from rag.records import Collection, Copy, Kind, Passage, Plan, Ranking
from rag.settings import RetrievalSettings
from rag.surroundings import diversified, surrounded
from rag.telemetry import Clock
from rag.tuning import Tuned

Scores = Mapping[Key, float]
#: Scores that differ by less do so by how they were added up.
SAME = 1e-6
#: Candidates that late interaction has not looked at have scores from 0 to here, the others from here to 1.
LOOKED_AT = 0.25
#: What a log odds of the built-in reader counts beside a standard deviation of the scores before it.
HEAD = 0.4
#: Tunings that are kept in memory, those of the last collections that were searched.
MOST_TUNINGS = 64


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


def beside(scores: Sequence[float], log_odds: Sequence[float], count: float) -> list[float]:
    """Return ``scores`` in units of their standard deviation plus ``count`` times ``log_odds``."""
    spread = float(np.std(scores)) if len(scores) else 0.0
    return [score / (spread or 1.0) + count * odds for score, odds in zip(scores, log_odds, strict=True)]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the first stages found: the scores of each, by row."""

    dense: Scores
    lexical: Scores
    fused: Scores


@dataclass(frozen=True, slots=True)
class Rereading:
    """What reads the best passages again; its scores stand alone, or count ``weight`` beside those before."""

    reranker: Reranker
    weight: float | None = None


class Retriever:
    """Finds the passages for a plan. ``indexes_of`` opens the indexes of a collection."""

    def __init__(
        self,
        catalog: Catalog,
        embedder: Embedder,
        indexes_of: Callable[[Collection], Indexes],
        settings: RetrievalSettings,
        reranker: Reranker | None = None,
        reader: Reranker | None = None,
    ) -> None:
        """``reranker`` is what the settings choose, and ``reader`` the built-in one, which a tuning may choose."""
        self._catalog = catalog
        self._embedder = embedder
        self._indexes_of = indexes_of
        self._settings = settings
        self._reranker = reranker
        self._reader = reader
        self._interaction = Interaction(catalog, embedder.fingerprint, embedder.dimension)
        self._usual = Tuned(settings.dense_weight, settings.late_weight)
        self._tunings: dict[str, Tuned] = {}

    def retrieve(self, plan: Plan, *, trace: bool = False, tuned: Tuned | None = None) -> Ranking:
        """Return the ``plan.top_k`` best passages of all the plan's collections, best first.

        With ``trace`` the ranking tells the chunks of each stage and their scores; their ids have to be looked up for
        that. ``tuned`` stands for what is in force.
        Raises `Misconfigured` if a collection was embedded with another embedder than the configured one.
        """
        with self._catalog.one_moment():
            return alone(self.steps(plan, trace=trace, tuned=tuned))

    def evidence(self, plan: Plan, tuned: Tuned | None = None) -> tuple[Candidates, Scores]:
        """Return what the stages say to the question of a plan, late interaction to all candidates that have codes."""
        with self._catalog.one_moment():
            return alone(self._evidence(plan, tuned or self.tuned(plan.collections)))

    def tuned(self, collections: Sequence[Collection]) -> Tuned:
        """Return what searches of some collections go by: one alone by its tuning, several as the settings say.

        Scores of a question that was turned in one way for one collection and in another for the next can not be
        compared.
        """
        chosen = collections[0].tuning if len(collections) == 1 else None
        if chosen is None:
            return self._usual
        if chosen not in self._tunings:
            self._tunings = {**dict([*self._tunings.items()][-MOST_TUNINGS:]), chosen: self._catalog.tuned(chosen)}
        return self._tunings[chosen]

    def one_moment(self) -> AbstractContextManager[None]:
        """While this lasts, all searches of this thread begin at one moment: see the catalog's `one_moment`."""
        return self._catalog.one_moment()

    def steps(
        self, plan: Plan, *, trace: bool = False, tuned: Tuned | None = None, clock: Clock | None = None
    ) -> Steps[Ranking]:
        """Do what `retrieve` does as a search that may go on in step with others, see `rag.reading`.

        ``clock`` measures the stages; it is made where the search was asked for.
        """
        clock = clock or Clock()
        known: dict[Key, Passage] = {}
        for collection in plan.collections:
            if collection.embedder not in {None, self._embedder.fingerprint}:
                raise wrong_embedder(str(collection.embedder), self._embedder.fingerprint)
        tuned = tuned or self.tuned(plan.collections)
        queries, understanding = plan.queries, plan.understanding
        rerank = self._rereading(plan, tuned)
        wanted = self._wanted(plan, rerank)
        found: list[tuple[Scores, dict[str, Scores]]] = []
        for query in queries:
            scored = yield from self._scored(_plan_of(plan, query), query.role, tuned, known, wanted, clock)
            found.append(scored)
        plan, (scores, parts) = _plan_of(plan, queries[0]), found[0]
        if len(queries) > 1:
            with clock.stage("mix"):
                parts |= {f"query {number}": others for number, (others, _) in enumerate(found[1:], 2)}
                scores = mixed(queries, [scored for scored, _ in found])
        with clock.stage("read"):
            read = yield from self._folded(plan, by_score(scores), known, wanted)
        if rerank is not None:
            with clock.stage("rerank"):
                most = self._settings.rerank_candidates
                parts["reranked"] = _reranked(rerank, plan, read[:most], scores)
                rest = {key: scores[key] for key, _ in read[most:]}
                scores = {**_behind(parts["reranked"], rest), **parts["reranked"]}
                read = sorted(read, key=lambda item: (-scores[item[0]], item[0]))
        if plan.diversity:
            with clock.stage("diversity"):
                read = yield from self._diversified(plan, read, scores)
        read = read[: plan.top_k]
        ranked = [replace(passage, score=scores[key], scores=_scores(key, parts)) for key, passage in read]
        if plan.around or plan.section:
            with clock.stage("around"):
                ranked = [surrounded(self._catalog, p, plan.around, section=plan.section) for p in ranked]
        stages = (yield from self._traced(parts)) if trace else {}
        ids = {name: tuple(key for key, _ in stage) for name, stage in stages.items()}
        stage_scores = {name: tuple(score for _, score in stage) for name, stage in stages.items()}
        if understanding.seconds:
            clock.add("understand", understanding.seconds)
        return Ranking(tuple(ranked), ids, clock.seconds, queries, understanding.notice, stage_scores)

    def _traced(self, parts: Mapping[str, Scores]) -> Steps[dict[str, list[tuple[str, float]]]]:
        """Return the chunks of each stage, best first, by id and score, without those that were retired since."""
        ids = yield Wanted(self._catalog.chunk_ids, list({key: None for part in parts.values() for key in part}))
        return {
            name: [(ids[key], float(part[key])) for key in by_score(part) if key in ids] for name, part in parts.items()
        }

    def _scored(
        self, plan: Plan, role: QueryRole, tuned: Tuned, known: dict[Key, Passage], wanted: int, clock: Clock
    ) -> Steps[tuple[Scores, dict[str, Scores]]]:
        """Return the scores of what is found for one query, and those of each stage; ``known`` see `_read`."""
        with clock.stage("embed"):
            asked = self._asked(plan, role)
            if role is not QueryRole.HYPOTHETICAL:
                asked = tuned.turned(asked)
        found = self._candidates(plan, asked, tuned, clock)
        parts: dict[str, Scores] = {"dense": found.dense, "lexical": found.lexical, "fused": found.fused}
        scores: Scores = found.fused
        if plan.parts.late and asked.tokens:
            with clock.stage("late"):
                best = by_score(found.fused)[: self._settings.late_candidates]
                weights, matches = yield from self._matched(plan, asked.tokens[0], best)
                parts["late"] = _late(weights, matches)
                scores = joined(found.fused, best, parts["late"], tuned.late_weight)
            if plan.parts.hop:
                with clock.stage("hop"):
                    scores = yield from self._hopped(plan, scores, matches, weights, known, wanted)
        return scores, parts

    def _evidence(self, plan: Plan, tuned: Tuned) -> Steps[tuple[Candidates, Scores]]:
        asked = tuned.turned(self._asked(plan, QueryRole.QUESTION))
        found = self._candidates(plan, asked, tuned, Clock())
        if not asked.tokens:
            return found, {}
        return found, _late(*(yield from self._matched(plan, asked.tokens[0], by_score(found.fused))))

    def _asked(self, plan: Plan, role: QueryRole) -> Encoding:
        """Return the vector of a query, and its tokens where late interaction asks for them."""
        if not plan.parts.dense and not plan.parts.late:
            return Encoding(np.zeros((1, self._embedder.dimension), dtype=np.float32))
        kind: Role = "passage" if role is QueryRole.HYPOTHETICAL else "query"
        return self._embedder.encode([plan.question], role=kind, tokens=plan.parts.late)

    def _candidates(self, plan: Plan, asked: Encoding, tuned: Tuned, clock: Clock) -> Candidates:
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
            return Candidates(dense, lexical, fuse(dense, lexical, tuned.dense_weight))

    def _matched(
        self, plan: Plan, tokens: TokenVectors, best: Sequence[Key]
    ) -> Steps[tuple[Vectors, Mapping[Key, Vectors]]]:
        """Return the weights of the question's tokens, and how each is matched by those candidates that have codes.

        Tokens that weigh nothing are left out, unless none weighs anything.
        """
        by_id = {collection.id: self._indexes_of(collection).lexical for collection in plan.collections}
        weights = self._interaction.weights(plan.question, tokens.spans, list(by_id.values()))
        if (weighty := weights > 0).any():
            weights = weights[weighty]
            tokens = TokenVectors(tokens.vectors[weighty], tokens.spans[weighty], tokens.ids[weighty])
        matches = self._interaction.matches(tokens, (yield Wanted(self._interaction.codes, best)))
        for owner, index in by_id.items():
            here = {seq: row for (collection_id, seq), row in matches.items() if collection_id == owner}
            self._interaction.settle_figures(plan.question, tokens.spans, here, index, plan.candidates)
        return weights, matches

    def _hopped(
        self,
        plan: Plan,
        scores: Scores,
        matches: Mapping[Key, Vectors],
        weights: Vectors,
        known: dict[Key, Passage],
        wanted: int,
    ) -> Steps[Scores]:
        """Return the scores with what the second hop adds to them; ``known`` see `_read`."""
        order = [key for key in by_score(scores) if key in matches]
        called = yield Wanted(self._catalog.names, order)
        names_by = {facts: names_of(*facts) for facts in set(called.values())}
        names = {key: names_by[facts] for key, facts in called.items()}
        read = yield from self._read(order[: max(BEST, 2 * wanted)], known)  # most of them are returned
        texts = {key: passage.text for key, passage in read.items() if _may_be_seen(plan, passage)}
        return hopped(scores, [key for key in order if key in names], texts, names, matches, weights)

    def _rereading(self, plan: Plan, tuned: Tuned) -> Rereading | None:
        """Return what reads the best passages again: a reranker of the operator's, or the reader if something asks."""
        if not plan.parts.rerank:
            return None
        if self._reranker is not None and self._reranker is not self._reader:
            return Rereading(self._reranker)
        usual = 0.0 if self._reranker is None else HEAD
        weight = usual if tuned.reader_weight is None else tuned.reader_weight
        return Rereading(self._reader, weight) if weight and self._reader is not None else None

    def _diversified(
        self, plan: Plan, read: Sequence[tuple[Key, Passage]], scores: Scores
    ) -> Steps[list[tuple[Key, Passage]]]:
        """Return the best passages that also differ from each other, see `rag.surroundings`."""
        keys = [key for key, _ in read]
        vectors = yield Wanted(self._vectors, keys)
        none = np.zeros(self._embedder.dimension, dtype=np.float32)
        relevance = min_max({key: scores[key] for key in keys})
        matrix = np.array([vectors.get(key, none) for key in keys], dtype=np.float32).reshape(len(keys), len(none))
        chosen = diversified([relevance[key] for key in keys], matrix, plan.diversity, plan.top_k)
        return [read[position] for position in chosen]

    def _vectors(self, collection_id: str, seqs: Sequence[int]) -> Mapping[int, Vectors]:
        return self._catalog.vectors(collection_id, self._embedder.fingerprint, seqs)

    def _wanted(self, plan: Plan, rerank: Rereading | None) -> int:
        """Return how many passages are read that differ: more than are returned if a later stage chooses of them."""
        reads_more = plan.diversity > 0 or rerank is not None
        return max(plan.top_k, self._settings.rerank_candidates) if reads_more else plan.top_k

    def _read(self, keys: Sequence[Key], known: dict[Key, Passage]) -> Steps[dict[Key, Passage]]:
        """Return those passages of ``keys`` that are live, reading only what is not ``known``, to which it is added."""
        if new := [key for key in keys if key not in known]:
            known |= yield Wanted(self._catalog.passages, new)
        return {key: known[key] for key in keys if key in known}

    def _folded(
        self, plan: Plan, order: Sequence[Key], known: dict[Key, Passage], wanted: int
    ) -> Steps[list[tuple[Key, Passage]]]:
        """Return the first passages of ``order`` that are no copies of one before them: as many as are ``wanted``.

        A passage names its copies among those read in ``also_in``. More are read until there are enough that differ.
        """
        found: dict[tuple[str, int], tuple[Key, Passage]] = {}
        step = 2 * wanted
        for start in range(0, len(order), step):
            read = yield from self._read(order[start : start + step], known)
            for key in order[start : start + step]:
                if (passage := read.get(key)) is None or not _may_be_seen(plan, passage):
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


def _reranked(rerank: Rereading, plan: Plan, read: Sequence[tuple[Key, Passage]], scores: Scores) -> Scores:
    """Return the scores of passages that are read again; ``scores`` are those before."""
    said = rerank.reranker.score(plan.question, [passage.indexed_text for _, passage in read])
    if rerank.weight is not None:
        said = beside([scores[key] for key, _ in read], said, rerank.weight)
    return {key: score for (key, _), score in zip(read, said, strict=True)}


def _behind(scores: Scores, others: Scores) -> Scores:
    """Return ``others`` below all ``scores``, in the order that they have."""
    least = min(scores.values(), default=0.0)
    return {key: least - 2 + score for key, score in min_max(others).items()}


def _may_be_seen(plan: Plan, passage: Passage) -> bool:
    """Say whether a passage is for this plan: what readers of a document do not see is found where that is wanted."""
    return plan.hidden or passage.kind is not Kind.HIDDEN


def as_copy(passage: Passage, of: Passage) -> Copy:
    """Return ``passage`` as a copy of another."""
    exact = passage.indexed_text == of.indexed_text
    return Copy(passage.chunk_id, passage.document_id, passage.document, passage.version, passage.page, exact)


def _late(weights: Vectors, matches: Mapping[Key, Vectors]) -> dict[Key, float]:
    """Return the scores of late interaction by what `Retriever._matched` returns."""
    rows = np.array(list(matches.values()), dtype=np.float32).reshape(len(matches), len(weights))
    return dict(zip(matches, weighted(rows, weights).tolist(), strict=True))


def _plan_of(plan: Plan, query: Query) -> Plan:
    """Return the plan for one of its queries; a hypothetical passage is looked for by its vector alone."""
    parts = plan.parts
    if query.role is QueryRole.HYPOTHETICAL:
        parts = replace(parts, lexical=False, late=False)
    return replace(plan, question=query.text, parts=parts)


def _keyed(collection: Collection, hits: Hits) -> dict[Key, float]:
    found = zip(hits.seqs.tolist(), hits.scores.tolist(), strict=True)
    return {(collection.id, seq): score for seq, score in found}


def by_score(scores: Scores) -> list[Key]:
    """Return rows best first, those of equal score in their order."""
    return sorted(scores, key=lambda key: (-scores[key], key))


def _scores(key: Key, parts: Mapping[str, Scores]) -> dict[str, float]:
    return {name: part[key] for name, part in parts.items() if key in part and name != "fused"}
